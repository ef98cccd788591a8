//! Recent traces, and the socket on which they are asked for.

use std::sync::Arc;

use super::{RunOptions, options};
use crate::export::Exporters;
use crate::settings::Settings;
use crate::store::server::Server;
use crate::store::{Limits, Store, StoreSink};
use crate::web::{self, WebError};

/// The store of a running agent. Dropping it removes the socket.
pub struct Remember {
    store: Arc<Store>,
    server: Option<Server>,
}

impl Remember {
    /// Remembers traces if somebody can ask for them. Without the socket the agent does everything else, and says so;
    /// an address that was asked for and cannot be had is an error.
    pub fn start(
        settings: &Settings,
        run: &RunOptions,
        exporters: &mut Exporters,
    ) -> Result<Option<Self>, WebError> {
        let store = Arc::new(Store::new(Limits::live(settings.explain.memory)));
        store.narrowed(options::narrowed(settings));
        let socket = settings.explain.socket.as_deref().filter(|_| run.socket);
        let server = socket.and_then(|path| match Server::start(path, store.clone()) {
            Ok(server) => Some(server),
            Err(e) => {
                tracing::warn!("`ktrdr-agent explain` will not be answered: {e}");
                None
            }
        });
        let listen = settings.ui.listen.filter(|_| run.ui);
        if let Some(listen) = listen {
            let at =
                web::traces::start(listen, settings.ui.token.reveal().map(str::to_owned), store.clone())?;
            tracing::info!("recent traces at http://{at}/");
        }
        if server.is_none() && listen.is_none() {
            return Ok(None);
        }
        exporters.add(Box::new(StoreSink(store.clone())));
        store.goes_live();
        Ok(Some(Self { store, server }))
    }

    /// Whether `explain` is answered.
    pub fn answers(&self) -> bool {
        self.server.is_some()
    }

    /// Answers those who asked what is under way.
    pub fn under_way(&self, core: &mut crate::core::Core) {
        if self.store.open_spans_wanted() {
            self.store.open_spans(core.under_way());
        }
    }

    /// Remembers a loss, so that answers about that time can say so.
    pub fn lost(&self, wall_ns: u64, counts: &[(String, u64)]) {
        self.store.lost(wall_ns, counts);
    }
}
