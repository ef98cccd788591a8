//! Containers: their id from a process's cgroup, their names from what the runtimes keep on disk.
//!
//! No runtime is asked over its API: its socket is root's key to the host, and an observer should not need it.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::procfs::read_bounded;

/// The container a process runs in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Id as the runtime shows it (64 hexadecimal digits; ECS on Fargate `<32 digits>-<number>`).
    pub id: String,
    /// `docker`, `containerd`, `cri-o`, `podman`; empty = the path does not tell.
    pub runtime: &'static str,
    /// Uid of the Kubernetes pod.
    pub pod_uid: Option<String>,
}

/// Names of a container; empty = unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerNames {
    /// Name: of the Compose service if there is one, else of the container.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes pod.
    pub pod: String,
    /// What Kubernetes itself says.
    pub known: Option<Arc<Pod>>,
}

/// A container of a pod, as Kubernetes' API knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Pod.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
    /// The container, as the pod's specification names it.
    pub container: String,
    /// Node.
    pub node: String,
    /// What made the pod: the attribute's key, and the name.
    pub workload: Option<(&'static str, String)>,
}

/// How runtimes name the last part of the path (with systemd's `.scope`), and what that says.
const SCOPES: [(&str, &str); 6] = [
    ("docker-", "docker"),
    ("cri-containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-", "cri-o"),
    ("libpod-", "podman"),
    ("", ""),
];

/// Finds the container in the text of `/proc/PID/cgroup`: lines `hierarchy:controllers:path`, version 1 or 2.
pub fn from_cgroup(text: &str) -> Option<Container> {
    text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find_map(from_path)
}

fn from_path(path: &str) -> Option<Container> {
    let mut parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    // A container may have cgroups of its own below (systemd or docker inside): the first match is the outermost,
    // the one the host knows.
    let pod_uid = parts.iter().find_map(|p| pod_uid(p));
    parts.dedup();
    for (i, part) in parts.iter().enumerate() {
        // containerd writes `slice:cri-containerd:<id>` when it is not told to use systemd.
        let part = part.rsplit(':').next().unwrap_or(part);
        let part = part.strip_suffix(".scope").unwrap_or(part);
        for (prefix, runtime) in SCOPES {
            let Some(id) = part.strip_prefix(prefix).filter(|id| is_id(id)) else { continue };
            let runtime = match (runtime, i.checked_sub(1).and_then(|up| parts.get(up))) {
                ("", Some(&"docker")) => "docker",
                ("", Some(&"libpod_parent")) => "podman",
                (runtime, _) => runtime,
            };
            return Some(Container { id: id.to_owned(), runtime, pod_uid });
        }
    }
    None
}

fn is_id(text: &str) -> bool {
    let hex =
        |t: &str, len| t.len() == len && t.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let fargate = || {
        text.split_once('-').is_some_and(|(a, b)| {
            hex(a, 32) && (6..=12).contains(&b.len()) && b.bytes().all(|b| b.is_ascii_digit())
        })
    };
    hex(text, 64) || fargate()
}

/// `pod<uid>` or `kubepods-burstable-pod<uid with _>.slice` → uid.
fn pod_uid(part: &str) -> Option<String> {
    let part = part.strip_suffix(".slice").unwrap_or(part);
    let uid = part.strip_prefix("pod").or_else(|| {
        let (before, uid) = part.rsplit_once("-pod")?;
        before.starts_with("kubepods").then_some(uid)
    })?;
    let uid = uid.replace('_', "-");
    let hex = uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    // A UUID, or the 32 digits of a static pod.
    (hex && (uid.len() == 36 || uid.len() == 32)).then_some(uid)
}

/// What Docker keeps in `config.v2.json`, as far as it matters.
#[derive(Deserialize)]
struct DockerConfig {
    #[serde(rename = "Name", default)]
    name: String,
    #[serde(rename = "Config", default)]
    config: DockerInner,
}

#[derive(Default, Deserialize)]
struct DockerInner {
    #[serde(rename = "Labels", default)]
    labels: Option<std::collections::BTreeMap<String, String>>,
}

/// An entry of Podman's `containers.json`.
#[derive(Deserialize)]
struct PodmanEntry {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

/// Files of runtimes are a few KiB per container; Podman's lists all of them.
const MAX_FILE: u64 = 4 << 20;

/// Looks the container's names up below the host's root directory; empty where nothing is found.
pub fn names(root: &Path, container: &Container) -> ContainerNames {
    docker(root, &container.id)
        .or_else(|| kubernetes(root, &container.id))
        .or_else(|| podman(root, &container.id))
        .unwrap_or_default()
}

fn docker(root: &Path, id: &str) -> Option<ContainerNames> {
    let path = root.join("var/lib/docker/containers").join(id).join("config.v2.json");
    let config: DockerConfig = serde_json::from_slice(&read_bounded(&path, MAX_FILE).ok()?).ok()?;
    let label = |key: &str| config.config.labels.as_ref()?.get(key).cloned();
    let name = label("com.docker.compose.service")
        .or_else(|| label("io.kubernetes.container.name"))
        .unwrap_or_else(|| config.name.trim_start_matches('/').to_owned());
    Some(ContainerNames {
        name,
        namespace: label("io.kubernetes.pod.namespace").unwrap_or_default(),
        pod: label("io.kubernetes.pod.name").unwrap_or_default(),
        known: None,
    })
}

/// The kubelet links every container's log as `<pod>_<namespace>_<container>-<id>.log`.
fn kubernetes(root: &Path, id: &str) -> Option<ContainerNames> {
    let suffix = format!("-{id}.log");
    let entries = std::fs::read_dir(root.join("var/log/containers")).ok()?;
    let name =
        entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).find(|n| n.ends_with(&suffix))?;
    let mut parts = name[..name.len() - suffix.len()].splitn(3, '_').map(str::to_owned);
    let (pod, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
    Some(ContainerNames { name, namespace, pod, known: None })
}

fn podman(root: &Path, id: &str) -> Option<ContainerNames> {
    let path = root.join("var/lib/containers/storage/overlay-containers/containers.json");
    let all: Vec<PodmanEntry> = serde_json::from_slice(&read_bounded(&path, MAX_FILE).ok()?).ok()?;
    let name = all.into_iter().find(|c| c.id == id)?.names.into_iter().next()?;
    Some(ContainerNames { name, ..ContainerNames::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3c2f8b0d5a7e4f1b9d6c3a2e1f0b8d7c6a5e4f3b2d1c0a9f8e7d6c5b4a392817";
    const UID: &str = "5f2e1c3a-8b7d-4e6f-9a1b-2c3d4e5f6a7b";

    #[test]
    fn ids_are_found_in_the_paths_of_every_runtime() {
        let slice = UID.replace('-', "_");
        let rows = [
            (format!("0::/system.slice/docker-{ID}.scope"), "docker", false),
            (format!("12:pids:/docker/{ID}\n11:cpu:/docker/{ID}"), "docker", false),
            (format!("0::/../../docker-{ID}.scope/init.scope"), "docker", false),
            (
                format!(
                    "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice/cri-containerd-{ID}.scope"
                ),
                "containerd",
                true,
            ),
            (format!("0::/kubepods/besteffort/pod{UID}/{ID}"), "", true),
            (format!("0::/system.slice:cri-containerd:{ID}"), "", false),
            (
                format!("0::/kubepods.slice/kubepods-pod{slice}.slice/crio-{ID}.scope/container"),
                "cri-o",
                true,
            ),
            (format!("0::/machine.slice/libpod-{ID}.scope/container"), "podman", false),
            (format!("0::/libpod_parent/libpod-{ID}"), "podman", false),
        ];
        for (text, runtime, pod) in rows {
            let c = from_cgroup(&text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((c.id.as_str(), c.runtime), (ID, runtime), "{text}");
            assert_eq!(c.pod_uid.as_deref(), pod.then_some(UID), "{text}");
        }
        let fargate =
            "9:memory:/ecs/0f1e2d3c4b5a69788796a5b4c3d2e1f0/0f1e2d3c4b5a69788796a5b4c3d2e1f0-3054012820";
        assert_eq!(from_cgroup(fargate).unwrap().id, "0f1e2d3c4b5a69788796a5b4c3d2e1f0-3054012820");
    }

    #[test]
    fn what_is_no_container_gives_none() {
        for text in [
            "0::/",
            "",
            "0::/user.slice/user-1000.slice/session-3.scope",
            "0::/system.slice/nginx.service",
            "4:memory:/process_api/e6fd2d5e93dedf90ee46e5b9c17fb9e5",
            "nonsense",
            "0::/machine.slice/libpod-conmon-abc.scope",
        ] {
            assert_eq!(from_cgroup(text), None, "{text}");
        }
    }

    #[test]
    fn names_come_from_the_runtime_s_files() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let container = Container { id: ID.into(), ..Container::default() };
        assert_eq!(names(root, &container), ContainerNames::default());

        let podman = root.join("var/lib/containers/storage/overlay-containers");
        std::fs::create_dir_all(&podman).unwrap();
        std::fs::write(podman.join("containers.json"), format!(r#"[{{"id":"{ID}","names":["pod-name"]}}]"#))
            .unwrap();
        assert_eq!(names(root, &container).name, "pod-name");

        let logs = root.join("var/log/containers");
        std::fs::create_dir_all(&logs).unwrap();
        std::fs::write(logs.join(format!("api-7d9_prod_web-server-{ID}.log")), "").unwrap();
        let k8s = names(root, &container);
        assert_eq!(
            (k8s.name.as_str(), k8s.namespace.as_str(), k8s.pod.as_str()),
            ("web-server", "prod", "api-7d9")
        );

        let docker = root.join("var/lib/docker/containers").join(ID);
        std::fs::create_dir_all(&docker).unwrap();
        let write = |text: &str| std::fs::write(docker.join("config.v2.json"), text).unwrap();
        write(r#"{"Name":"/ktrdr-api-1","Config":{"Labels":{"com.docker.compose.service":"backend"}}}"#);
        assert_eq!(names(root, &container).name, "backend");
        write(r#"{"Name":"/ktrdr-api-1","Config":{"Labels":null}}"#);
        assert_eq!(names(root, &container).name, "ktrdr-api-1");
        write("not json");
        assert_eq!(names(root, &container).name, "web-server");
    }
}
