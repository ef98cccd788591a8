//! Recent traces, and the socket on which they are asked for.

use std::sync::Arc;

use crate::export::Exporters;
use crate::settings::Settings;
use crate::store::server::Server;
use crate::store::{Limits, Store, StoreSink};

/// The store of a running agent. Dropping it removes the socket.
pub struct Remember {
    store: Arc<Store>,
    _server: Server,
}

impl Remember {
    /// Without the socket the agent does everything else, and says so.
    pub fn start(settings: &Settings, exporters: &mut Exporters) -> Option<Self> {
        let path = settings.explain.socket.as_deref()?;
        let store = Arc::new(Store::new(Limits::live(settings.explain.memory)));
        match Server::start(path, store.clone()) {
            Ok(server) => {
                exporters.add(Box::new(StoreSink(store.clone())));
                store.goes_live();
                Some(Self { store, _server: server })
            }
            Err(e) => {
                tracing::warn!("`ktrdr-agent explain` will not be answered: {e}");
                None
            }
        }
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
