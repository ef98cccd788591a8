//! The agent as an MCP server (Model Context Protocol), so that a language model that helps to debug gets its answer
//! in the first response: `ktrdr-agent mcp` speaks JSON-RPC on standard input and output and asks the running agent
//! on its socket. It reads only, and knows nothing that `explain` does not.
//!
//! The protocol itself is `rmcp`'s, the official SDK; the tools are one table, [`tools`].

mod tools;

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::Context;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, Implementation, ListToolsResult, PaginatedRequestParams,
    ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer, ServerInitializeError};
use rmcp::{ErrorData, ServerHandler, ServiceExt};

/// What the model is told about the server as a whole.
const INSTRUCTIONS: &str = "Observes the HTTP and IB Gateway calls between the services of this host, read-only, by \
    eBPF. To find out why something failed, call `explain` first (with an operation id, a trace id, an id from a URL, \
    or \"last error\"): it answers with the cause, the chain of calls that led to it, the evidence and what is not \
    known. Quote its `verdict.sentence`; `confidence: inferred` means that an edge of the chain is not certain.";

/// Serves until standard input ends.
pub fn serve(socket: PathBuf) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
    if std::io::stdin().is_terminal() {
        eprintln!(
            "A language model's program starts this command and speaks JSON-RPC to it, a message a line (docs/mcp.md). \
             Ctrl-D ends it."
        );
    }
    runtime.block_on(async {
        let service = match (Server { socket }).serve(rmcp::transport::stdio()).await {
            Ok(service) => service,
            // A client that went before it said anything wants nothing.
            Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
            Err(e) => return Err(e).context("MCP handshake"),
        };
        service.waiting().await.context("MCP")?;
        Ok(())
    })
}

struct Server {
    socket: PathBuf,
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let about = Implementation::new("ktrdr-agent", env!("CARGO_PKG_VERSION"));
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(about)
            .with_instructions(INSTRUCTIONS)
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools::all().into_iter().find(|t| t.name == name)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools::all()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let socket = self.socket.clone();
        let arguments = request.arguments.unwrap_or_default();
        // The socket is asked on a thread of its own: a model may ask several things at once.
        let answer = tokio::task::spawn_blocking(move || tools::call(&socket, &request.name, &arguments));
        let answer = answer.await.map_err(|e| ErrorData::internal_error(e.to_string(), None))??;
        Ok(answer.into())
    }
}
