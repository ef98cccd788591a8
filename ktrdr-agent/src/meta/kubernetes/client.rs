//! Asking the API server for the pods of this node.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Certificate;
use reqwest::blocking::Client as Http;
use reqwest::header::ACCEPT;

use super::{Pods, documents};
use crate::settings;

/// A list of a node's pods takes milliseconds; an API server under load some seconds.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Longest list that is read: 500 pods of 50 KiB, with room.
const MAX_LIST: u64 = 32 << 20;
/// Longest token or certificate.
const MAX_FILE: u64 = 1 << 20;

/// Why there are no names.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Not in a cluster.
    #[error("kubernetes.api = \"in-cluster\", but KUBERNETES_SERVICE_HOST is not set: this is no pod")]
    NotInCluster,
    /// No node.
    #[error("kubernetes.node must name this node, or the pods of all nodes would be read")]
    NoNode,
    /// Not a URL.
    #[error("kubernetes.api: {0} is not a URL")]
    Url(String),
    /// A file cannot be used.
    #[error("{0}: {1}")]
    File(PathBuf, String),
    /// It does not answer, or not so.
    #[error("{0}")]
    Answer(String),
    /// No thread.
    #[error("no thread for the Kubernetes API: {0}")]
    Thread(std::io::Error),
}

/// Whom to ask, and how.
pub struct Target {
    url: reqwest::Url,
    token: Option<PathBuf>,
    ca: Option<PathBuf>,
}

impl Target {
    /// As the settings say; `None` = nobody.
    pub fn new(settings: &settings::Kubernetes) -> Result<Option<Self>, ApiError> {
        let in_cluster = settings.api == "in-cluster";
        let api = match settings.api.as_str() {
            "" => return Ok(None),
            "in-cluster" => cluster().ok_or(ApiError::NotInCluster)?,
            url => url.to_owned(),
        };
        if settings.node.is_empty() {
            return Err(ApiError::NoNode);
        }
        let mut url = reqwest::Url::parse(&api).map_err(|_| ApiError::Url(api.clone()))?;
        url.set_path(&format!("{}/api/v1/pods", url.path().trim_end_matches('/')));
        url.query_pairs_mut()
            .clear()
            .append_pair("fieldSelector", &format!("spec.nodeName={}", settings.node))
            // From the API server's cache, not from etcd: a fleet of agents costs it little.
            .append_pair("resourceVersion", "0");
        // A URL that somebody gave may be that of `kubectl proxy`, which takes neither.
        let file = |path: &str| {
            let path = PathBuf::from(path);
            (in_cluster || path.exists()).then_some(path)
        };
        Ok(Some(Self { url, token: file(&settings.token_file), ca: file(&settings.ca_file) }))
    }
}

/// The API server's address, as every pod is told it.
fn cluster() -> Option<String> {
    let host = std::env::var("KUBERNETES_SERVICE_HOST").ok().filter(|h| !h.is_empty())?;
    let port = std::env::var("KUBERNETES_SERVICE_PORT").unwrap_or_else(|_| "443".to_owned());
    Some(if host.contains(':') {
        format!("https://[{host}]:{port}")
    } else {
        format!("https://{host}:{port}")
    })
}

/// Asks.
pub struct Client {
    http: Http,
    target: Target,
}

impl Client {
    /// Reads the certificate.
    pub fn new(target: Target) -> Result<Self, ApiError> {
        let mut builder = Http::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            // The cluster's own address is behind no proxy.
            .no_proxy()
            .user_agent(concat!("ktrdr-agent/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &target.ca {
            let pem = read(path)?;
            let roots = Certificate::from_pem_bundle(&pem);
            let roots = roots.map_err(|e| ApiError::File(path.clone(), e.to_string()))?;
            builder = builder.tls_built_in_root_certs(false);
            builder = roots.into_iter().fold(builder, reqwest::blocking::ClientBuilder::add_root_certificate);
        }
        let http = builder.build().map_err(|e| ApiError::Answer(e.to_string()))?;
        Ok(Self { http, target })
    }

    /// The pods of this node.
    pub fn pods(&self) -> Result<Pods, ApiError> {
        let mut request = self.http.get(self.target.url.clone()).header(ACCEPT, "application/json");
        if let Some(path) = &self.target.token {
            // Read each time: the kubelet renews it every hour.
            let token = String::from_utf8_lossy(&read(path)?).trim().to_owned();
            request = request.bearer_auth(token);
        }
        let failed = |e: &dyn std::error::Error| {
            let source = e.source().map(|s| format!(": {s}")).unwrap_or_default();
            ApiError::Answer(format!("{e}{source}"))
        };
        let answer = request.send().map_err(|e| failed(&e))?;
        let status = answer.status();
        let mut text = Vec::new();
        answer.take(MAX_LIST + 1).read_to_end(&mut text).map_err(|e| failed(&e))?;
        if !status.is_success() {
            let why = if status == reqwest::StatusCode::FORBIDDEN {
                "; its service account may not list pods (the chart's ClusterRole allows it)"
            } else {
                ""
            };
            return Err(ApiError::Answer(format!("the Kubernetes API answers {status}{why}")));
        }
        if text.len() as u64 > MAX_LIST {
            return Err(ApiError::Answer(format!("the list of pods is longer than {} MiB", MAX_LIST >> 20)));
        }
        documents::pods(&text).map_err(|e| ApiError::Answer(format!("not a list of pods: {e}")))
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, ApiError> {
    let failed = |e: std::io::Error| ApiError::File(path.clone(), e.to_string());
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(MAX_FILE).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
