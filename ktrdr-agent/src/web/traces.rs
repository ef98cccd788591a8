//! The site of recent traces: a page for people at `/`, Jaeger's query API under `/api/`, and the agent's own answers
//! (the ones of the socket) under `/ktrdr/`.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::StatusCode;
use serde::Serialize;
use serde_json::json;

use super::reply::{self, Reply};
use super::{Asked, Server, ServerOptions, Site, WebError, Who, page};
use crate::store::jaeger::{self, TraceQuery};
use crate::store::{Answers, Filter, NotFound, Store};

/// Rows of a listing when none is asked for.
const ROWS: usize = 20;

/// Recent traces for those who may see them.
pub struct Traces {
    store: Arc<Store>,
    who: Who,
}

/// Serves the traces of `store` from now on; returns where.
pub fn start(listen: SocketAddr, token: Option<String>, store: Arc<Store>) -> Result<SocketAddr, WebError> {
    let options = ServerOptions { listen, what: "ui", setting: "ui.listen (--ui-listen)" };
    Server::start(&options, Traces::new(store, token)).map(|server| server.address())
}

impl Traces {
    /// Whoever shows `token` may see all that `store` holds.
    pub fn new(store: Arc<Store>, token: Option<String>) -> Self {
        Self { store, who: Who::new(token, "ui.token") }
    }

    /// Answers; complete before anything is sent.
    pub fn reply(&self, asked: &Asked) -> Reply {
        if let Some(refused) = self.who.refuse_foreign_name(&asked.headers) {
            return refused;
        }
        // The page itself holds no data: it asks for the token, and then for what it shows.
        if asked.path == "/" {
            return page::reply();
        }
        if let Some(refused) = self.who.refuse_without_token(&asked.headers) {
            return refused;
        }
        if let Some(own) = asked.path.strip_prefix("/ktrdr/") {
            return self.own(own, &asked.query);
        }
        match jaeger::answer(&self.store, &asked.path, &asked.query) {
            Some(jaeger::Answer { status, body }) => {
                reply::json(StatusCode::from_u16(status).unwrap_or(StatusCode::OK), body)
            }
            None => reply::text(StatusCode::NOT_FOUND, "there are /, /api/… (Jaeger's) and /ktrdr/…\n"),
        }
    }

    /// What `ktrdr-agent explain` is told.
    fn own(&self, what: &str, query: &str) -> Reply {
        let value = |name| jaeger::value(query, name).filter(|v| !v.is_empty());
        match what {
            "explain" => match value("query") {
                Some(query) => found(self.store.explain(&query)),
                None => bad("parameter 'query' is required: an operation, a trace, or words"),
            },
            "list" => {
                let limit = value("limit").and_then(|n| n.parse().ok()).unwrap_or(ROWS);
                good(&self.store.list_of(limit, &Filter::default()))
            }
            "find" => match TraceQuery::parse(query) {
                Ok(query) => good(&self.store.find(&query)),
                Err(e) => bad(&e.to_string()),
            },
            _ => {
                reply::text(StatusCode::NOT_FOUND, "there are /ktrdr/explain, /ktrdr/list and /ktrdr/find\n")
            }
        }
    }
}

impl Site for Traces {
    async fn answer(&self, asked: Asked) -> Reply {
        self.reply(&asked)
    }
}

fn good(answer: &impl Serialize) -> Reply {
    match serde_json::to_string(answer) {
        Ok(text) => reply::json(StatusCode::OK, text),
        Err(e) => reply::json(StatusCode::INTERNAL_SERVER_ERROR, json!({"error": e.to_string()}).to_string()),
    }
}

fn found(answer: Result<impl Serialize, NotFound>) -> Reply {
    match answer {
        Ok(answer) => good(&answer),
        Err(NotFound { message, suggestions }) => {
            let text = json!({"error": message, "suggestions": suggestions}).to_string();
            reply::json(StatusCode::NOT_FOUND, text)
        }
    }
}

fn bad(message: &str) -> Reply {
    reply::json(StatusCode::BAD_REQUEST, json!({"error": message}).to_string())
}
