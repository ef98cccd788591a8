//! The list of pods, as far as it matters: `v1.PodList` of Kubernetes' API.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::Pods;
use crate::meta::container::Pod;

/// Containers remembered: more than a node can run, and a bound on what a strange server may have us keep.
const MAX_CONTAINERS: usize = 16 * 1024;

#[derive(Deserialize)]
struct PodList {
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    owner_references: Vec<Owner>,
}

#[derive(Deserialize)]
struct Owner {
    kind: String,
    name: String,
    #[serde(default)]
    controller: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    node_name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    container_statuses: Vec<Container>,
    #[serde(default)]
    init_container_statuses: Vec<Container>,
    #[serde(default)]
    ephemeral_container_statuses: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    name: String,
    /// `containerd://<id>`; missing until it was started.
    #[serde(rename = "containerID", default)]
    id: String,
}

/// Pods by container, from the text of a list.
pub fn pods(text: &[u8]) -> Result<Pods, serde_json::Error> {
    let list: PodList = serde_json::from_slice(text)?;
    let mut pods = Pods::new();
    for Item { metadata, spec, status } in list.items {
        let workload = workload(&metadata);
        let all =
            [status.container_statuses, status.init_container_statuses, status.ephemeral_container_statuses];
        for container in all.into_iter().flatten() {
            let Some((_, id)) = container.id.split_once("://") else { continue };
            if pods.len() >= MAX_CONTAINERS {
                return Ok(pods);
            }
            let pod = Pod {
                name: metadata.name.clone(),
                namespace: metadata.namespace.clone(),
                uid: metadata.uid.clone(),
                container: container.name,
                node: spec.node_name.clone(),
                workload: workload.clone(),
            };
            pods.insert(id.to_owned(), Arc::new(pod));
        }
    }
    Ok(pods)
}

/// What made the pod, as the attribute that names it.
fn workload(pod: &Metadata) -> Option<(&'static str, String)> {
    let owner = pod.owner_references.iter().find(|o| o.controller)?;
    let name = owner.name.clone();
    match owner.kind.as_str() {
        "ReplicaSet" => {
            let hash = pod.labels.get("pod-template-hash");
            let deployment = hash.and_then(|hash| name.strip_suffix(hash.as_str())?.strip_suffix('-'));
            match deployment {
                Some(deployment) => Some(("k8s.deployment.name", deployment.to_owned())),
                None => Some(("k8s.replicaset.name", name)),
            }
        }
        "StatefulSet" => Some(("k8s.statefulset.name", name)),
        "DaemonSet" => Some(("k8s.daemonset.name", name)),
        "Job" => Some(("k8s.job.name", name)),
        _ => None,
    }
}
