//! Against a fake API server with a list of pods after Kubernetes' reference.

use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::*;
use crate::settings::Settings;

const LIST: &[u8] = include_bytes!("../../../../tests/fixtures/kubernetes/pods.json");
/// `api` of the deployment's pod, and `db` of the stateful set's.
const API: &str = "d27823cd24d3951bf3c9c888e2a8f186a3a4588c246309b0807ac408c51cf915";
const DB: &str = "3e7fd8139efabca0b77f4831adffe4aa024cb2eecf42f61ab151b1d3bbedd0fb";
const DEADLINE: Duration = Duration::from_secs(20);

/// Gives each request (its head) to the test and answers with what the test says.
struct ApiServer {
    url: String,
    requests: Receiver<String>,
    answers: Sender<(u16, Vec<u8>)>,
}

impl ApiServer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let ((asked, requests), (answers, next)) = (channel(), channel::<(u16, Vec<u8>)>());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
                if asked.send(head).is_err() {
                    return;
                }
                let Ok((status, body)) = next.recv() else { return };
                let head = format!(
                    "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                // A client that went away is the test's end.
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            }
        });
        Self { url, requests, answers }
    }

    fn request(&self) -> String {
        self.requests.recv_timeout(DEADLINE).expect("a request")
    }

    fn answer(&self, status: u16, body: &[u8]) {
        self.answers.send((status, body.to_vec())).unwrap();
    }
}

fn settings(server: &ApiServer, token: &std::path::Path) -> Settings {
    let text = format!(
        "[kubernetes]\napi = {:?}\nnode = \"node-a\"\ntoken_file = {:?}\nca_file = \"/nonexistent\"",
        server.url,
        token.to_string_lossy()
    );
    Settings::from_text(Some((std::path::Path::new("k.toml"), &text)), &[], &[]).unwrap()
}

fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "{what} does not come");
        std::thread::yield_now();
    }
}

#[test]
fn a_list_tells_pod_container_node_and_workload() {
    let pods = documents::pods(LIST).unwrap();
    let api = &pods[API];
    assert_eq!(
        **api,
        Pod {
            name: "ktrdr-api-7d9c5b6f48-x2x4k".into(),
            namespace: "trading".into(),
            uid: "5f2e1c3a-8b7d-4e6f-9a1b-2c3d4e5f6a7b".into(),
            container: "api".into(),
            node: "node-a".into(),
            workload: Some(("k8s.deployment.name", "ktrdr-api".into())),
        }
    );
    let mut workloads: Vec<(&str, Option<(&str, &str)>)> = pods
        .values()
        .map(|p| (p.container.as_str(), p.workload.as_ref().map(|(k, n)| (*k, n.as_str()))))
        .collect();
    workloads.sort_unstable();
    assert_eq!(
        workloads,
        [
            ("api", Some(("k8s.deployment.name", "ktrdr-api"))),
            ("db", Some(("k8s.statefulset.name", "timescale"))),
            ("job", Some(("k8s.job.name", "nightly-29384750"))),
            ("kube-proxy", None),
            ("migrate", Some(("k8s.deployment.name", "ktrdr-api"))),
            ("node-exporter", Some(("k8s.daemonset.name", "node-exporter"))),
            ("sidecar", Some(("k8s.deployment.name", "ktrdr-api"))),
        ],
        "a container that was not started has no id"
    );
    for nonsense in ["", "[1]", "{\"items\":[{}]}", "{\"items\":[{\"metadata\":{}}]}"] {
        assert!(documents::pods(nonsense.as_bytes()).is_err(), "{nonsense}");
    }
    assert!(documents::pods(b"{}").unwrap().is_empty());
}

#[test]
fn a_container_that_is_not_known_is_asked_for_and_nobody_waits() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "first\n").unwrap();
    let server = ApiServer::start();
    let mut kubernetes = Kubernetes::start(&settings(&server, &token).kubernetes).unwrap().unwrap();
    let head = server.request();
    let line = head.lines().next().unwrap();
    assert_eq!(line, "GET /api/v1/pods?fieldSelector=spec.nodeName%3Dnode-a&resourceVersion=0 HTTP/1.1");
    assert!(head.to_ascii_lowercase().contains("authorization: bearer first\r\n"), "{head}");
    // The server has not answered, and the question returns.
    let begin = Instant::now();
    assert_eq!(kubernetes.pod(API), None);
    assert!(kubernetes.news().is_none() && begin.elapsed() < Duration::from_secs(1));
    std::fs::write(&token, "second").unwrap();
    // It does not know the container yet: it is asked again, with the token of then, although nobody asked anew.
    server.answer(200, b"{\"kind\":\"PodList\",\"items\":[]}");
    let head = server.request();
    assert!(head.to_ascii_lowercase().contains("authorization: bearer second\r\n"), "{head}");
    server.answer(200, LIST);
    let pods = until("the list", || kubernetes.news().filter(|pods| !pods.is_empty()));
    assert_eq!(pods.len(), 7);
    assert_eq!(kubernetes.pod(API).unwrap().name, "ktrdr-api-7d9c5b6f48-x2x4k");
    assert!(kubernetes.news().is_none());
}

#[test]
fn a_server_in_trouble_is_asked_again() {
    let server = ApiServer::start();
    let mut kubernetes =
        Kubernetes::start(&settings(&server, std::path::Path::new("/nonexistent")).kubernetes)
            .unwrap()
            .unwrap();
    let head = server.request();
    assert!(!head.to_ascii_lowercase().contains("authorization"), "there is no token: {head}");
    server.answer(500, b"no");
    server.request();
    server.answer(200, LIST);
    until("the list", || kubernetes.news());
    assert_eq!(kubernetes.pod(DB).unwrap().workload, Some(("k8s.statefulset.name", "timescale".into())));
}

#[test]
fn what_cannot_work_is_said() {
    let start = |api: &str, node: &str| {
        let text = format!("[kubernetes]\napi = {api:?}\nnode = {node:?}");
        let s = Settings::from_text(Some((std::path::Path::new("k.toml"), &text)), &[], &[]).unwrap();
        Kubernetes::start(&s.kubernetes).map(|k| k.is_some())
    };
    assert!(!start("", "").unwrap());
    assert!(start("http://127.0.0.1:1", "").unwrap_err().to_string().contains("kubernetes.node"));
    assert!(start("nonsense", "n").unwrap_err().to_string().contains("not a URL"));
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() {
        assert!(start("in-cluster", "n").unwrap_err().to_string().contains("KUBERNETES_SERVICE_HOST"));
    }
}

#[test]
fn unknown_containers_are_bounded() {
    let kubernetes = Kubernetes { shared: Arc::default(), seen: 0 };
    (0..3 * MAX_UNKNOWN).for_each(|n| drop(kubernetes.pod(&n.to_string())));
    assert_eq!(kubernetes.shared.lock().unknown.len(), MAX_UNKNOWN);
}

/// A process is reported at once with what files say, and again when its pod is known.
#[test]
fn a_process_gets_its_pod_as_soon_as_it_is_known() {
    let fake = crate::meta::fake::FakeProc::new();
    fake.process(50, 1, &["/usr/bin/python3", "-m", "uvicorn", "app:app"])
        .file("cgroup", format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{API}.scope\n"));
    let server = ApiServer::start();
    let mut settings = settings(&server, std::path::Path::new("/nonexistent"));
    settings.host.proc = fake.root().to_string_lossy().into_owned();
    settings.host.root = fake.root().join("no-root").to_string_lossy().into_owned();
    let mut meta = crate::meta::Metadata::new(&settings);
    meta.ask_kubernetes(&settings).unwrap();
    let header = ktrdr_ebpf_common::EventHeader {
        ts: 1_000_000_000_000,
        tgid: 50,
        tid: 50,
        len: 24,
        kind: ktrdr_ebpf_common::kind::DATA,
        flags: 0,
    };
    let attributes = |event: crate::event::ShellEvent| match event {
        crate::event::ShellEvent::Process(p) => {
            assert_eq!(p.container_id.as_deref(), Some(API));
            p.attributes.into_iter().filter(|(k, _)| k.starts_with("k8s.")).collect::<BTreeMap<_, _>>()
        }
        other => panic!("{other:?}"),
    };
    let first = attributes(meta.observe(&header, &[0; 24]).unwrap());
    assert_eq!(first, BTreeMap::new());
    server.request();
    server.answer(200, LIST);
    let again = until("the report", || meta.pods_known().pop());
    let want = [
        ("k8s.container.name", "api"),
        ("k8s.deployment.name", "ktrdr-api"),
        ("k8s.namespace.name", "trading"),
        ("k8s.node.name", "node-a"),
        ("k8s.pod.name", "ktrdr-api-7d9c5b6f48-x2x4k"),
        ("k8s.pod.uid", "5f2e1c3a-8b7d-4e6f-9a1b-2c3d4e5f6a7b"),
    ];
    assert_eq!(attributes(again), want.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert!(meta.pods_known().is_empty(), "once");
}
