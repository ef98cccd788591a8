//! `ktrdr-agent explain`: asks a running agent, or a file, and prints the answer.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use super::output::print;
use crate::explain::{Listing, Report, show};
use crate::export::console::terminal;
use crate::settings::Settings;
use crate::store::client::{AskError, ask};
use crate::store::protocol::{Request, VERSION};
use crate::store::{Answers, Filter, from_files};

/// `explain`.
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// Operation id, trace id (or the beginning of one), an id that occurs in a URL, or "last error".
    #[arg(required_unless_present = "list", num_args = 1..)]
    pub query: Vec<String>,
    /// Show recent operations and errors instead.
    #[arg(long, conflicts_with = "query")]
    pub list: bool,
    /// With --list: only what failed.
    #[arg(long, requires = "list")]
    pub errors: bool,
    /// With --list: only operations of this type, e.g. training or data_load.
    #[arg(long = "type", value_name = "TYPE", requires = "list")]
    pub kind: Option<String>,
    /// With --list: only what this service or worker took part in.
    #[arg(long, value_name = "NAME", requires = "list")]
    pub service: Option<String>,
    /// With --list: only what is about this symbol.
    #[arg(long, value_name = "SYMBOL", requires = "list")]
    pub symbol: Option<String>,
    /// With --list: only the last e.g. 10m.
    #[arg(long, value_name = "TIME", requires = "list")]
    pub since: Option<crate::settings::values::Period>,
    /// Print JSON (schema ktrdr.explain/1, see docs/explain.md).
    #[arg(long)]
    pub json: bool,
    /// Read this instead of asking a running agent: a file from `run --spans-out`, or a recording. Given several times,
    /// e.g. one of each host, calls between them are joined.
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    pub file: Vec<PathBuf>,
    /// Socket of the running agent [default: the setting explain.socket].
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Configuration file (see `config print`).
    #[arg(long, value_name = "FILE", env = "KTRDR_AGENT_CONFIG")]
    pub config: Option<PathBuf>,
}

impl Explain {
    fn filter(&self) -> Filter {
        Filter {
            errors: self.errors,
            kind: self.kind.clone(),
            service: self.service.clone(),
            symbol: self.symbol.clone(),
            since_s: self.since.map(|p| p.0.as_secs()),
        }
    }
}

/// Rows of `--list`.
const ROWS: usize = 20;

/// Runs the command. Exit status 0: answered; 1: no answer.
pub fn run(args: &Explain, settings: &Settings) -> anyhow::Result<ExitCode> {
    let query = args.query.join(" ");
    let outcome = if args.file.is_empty() {
        from_agent(args, settings, query)
    } else {
        let store = from_files(&args.file, settings)?;
        if args.list {
            Ok(Answer::List(store.list_of(ROWS, &args.filter())))
        } else {
            from_store(&store, &query)
        }
    };
    match outcome {
        Ok(answer) => {
            print(&answer.text(args.json)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(why) => {
            eprintln!("error: {}", why.message);
            if !why.suggestions.is_empty() {
                eprintln!("did you mean: {}", why.suggestions.join(", "));
            }
            if why.known {
                eprintln!("`ktrdr-agent explain --list` shows what there is");
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

/// What came back.
enum Answer {
    Report(Box<Report>),
    List(Listing),
}

/// There is no answer, and why.
struct Nothing {
    message: String,
    suggestions: Vec<String>,
    /// Somebody was there who knows what there is.
    known: bool,
}

impl Nothing {
    fn unreachable(message: String) -> Self {
        Self { message, suggestions: Vec::new(), known: false }
    }
}

fn from_store(store: &dyn Answers, query: &str) -> Result<Answer, Nothing> {
    let answer = store.explain(query).map(|r| Answer::Report(Box::new(r)));
    answer.map_err(|e| Nothing { message: e.message, suggestions: e.suggestions, known: true })
}

fn from_agent(args: &Explain, settings: &Settings, query: String) -> Result<Answer, Nothing> {
    let Some(socket) = args.socket.clone().or_else(|| settings.explain.socket.clone()) else {
        let message = "the settings name no socket (explain.socket): give --socket or --file".to_owned();
        return Err(Nothing::unreachable(message));
    };
    let request = |op: &str, query, limit| Request {
        v: VERSION,
        op: op.to_owned(),
        query,
        limit,
        ..Request::default()
    };
    let answer = if args.list {
        let filter = Some(args.filter()).filter(|f| !f.is_empty());
        ask(&socket, &Request { filter, ..request("list", None, Some(ROWS)) }).map(Answer::List)
    } else {
        ask(&socket, &request("explain", Some(query), None)).map(|r| Answer::Report(Box::new(r)))
    };
    answer.map_err(|e| match e {
        AskError::Refused { message, suggestions, .. } => Nothing { message, suggestions, known: true },
        other => Nothing::unreachable(other.to_string()),
    })
}

impl Answer {
    fn text(&self, json: bool) -> anyhow::Result<String> {
        if json {
            let mut text = match self {
                Answer::Report(report) => serde_json::to_string(report)?,
                Answer::List(list) => serde_json::to_string(list)?,
            };
            text.push('\n');
            return Ok(text);
        }
        let on_terminal = terminal::stdout_is_terminal();
        let width = if on_terminal { terminal::width() } else { None };
        let style = show::Style {
            width: width.unwrap_or(120),
            color: on_terminal && terminal::wants_color() && std::io::stdout().is_terminal(),
            utc_offset: terminal::utc_offset,
        };
        Ok(match self {
            Answer::Report(report) => show::report(report, &style),
            Answer::List(list) => show::listing(list, &style),
        })
    }
}
