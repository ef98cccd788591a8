//! Settings of Kubernetes metadata, checked.

use super::{Bad, said};

/// Kubernetes metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// URL of the API server, `in-cluster`, or nothing.
    pub api: String,
    /// This node's name.
    pub node: String,
    /// File with the token.
    pub token_file: String,
    /// File with the certificates to trust.
    pub ca_file: String,
}

impl Kubernetes {
    pub(super) fn resolve(said: &said::Kubernetes) -> Result<Self, Bad> {
        if !said.api.is_empty() && !cfg!(feature = "kubernetes") {
            let why = "needs an agent that was built with `--features kubernetes`, which this one is not";
            return Err(Bad::new("kubernetes.api", why));
        }
        Ok(Self {
            api: said.api.clone(),
            node: said.node.clone(),
            token_file: said.token_file.clone(),
            ca_file: said.ca_file.clone(),
        })
    }
}
