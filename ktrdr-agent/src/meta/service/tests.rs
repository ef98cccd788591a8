use super::{super::container::Container, *};
use crate::event::shell::NameSource::{Builtin, Config, Environment, Guess};

const SPAWN: &str = "from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=5, pipe_handle=7)";

/// A process by its command line; the executable follows from its first word.
fn process(cwd: &str, line: &str) -> Process {
    let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let exe = if args[0].starts_with('/') { args[0].clone() } else { format!("/usr/bin/{}", args[0]) };
    Process { pid: 4711, exe, args, cwd: cwd.into(), ..Process::default() }
}

fn spawned(cwd: &str) -> Process {
    let args = ["python", "-c", SPAWN, "--multiprocessing-fork"].map(str::to_owned);
    Process { args: args.into(), ..process(cwd, "python") }
}

fn name_of(namer: &Namer, p: &Process, origin: &Process, ports: &[u16]) -> (String, NameSource) {
    let container = ContainerNames::default();
    let service = namer.name(&Subject { process: p, origin, ports, container: &container });
    (service.name, service.source)
}

fn name(cwd: &str, line: &str, ports: &[u16]) -> (String, NameSource) {
    let p = process(cwd, line);
    name_of(&Namer::new(&Services::default()), &p, &p, ports)
}

#[test]
fn every_service_of_ktrdr_has_the_name_its_users_expect() {
    let backtest = "python /venv/bin/uvicorn ktrdr.backtesting.backtest_worker:app --host 0.0.0.0";
    let training = "/usr/local/bin/python3.13 -m uvicorn ktrdr.training.training_worker:app";
    for (cwd, line, ports, want) in [
        (
            "/app",
            "/usr/local/bin/python3.13 /usr/local/bin/uvicorn ktrdr.api.main:app --port 8000",
            &[][..],
            "ktrdr-api",
        ),
        ("/app", "python -m uvicorn ktrdr.api.main:app --reload", &[8000], "ktrdr-api"),
        ("/home/kt/ktrdr/ib-host-service", "python main.py", &[], "ktrdr-ib-host-service"),
        ("/home/kt/ktrdr/ib-host-service", "/opt/venv/bin/python3 main.py", &[5001], "ktrdr-ib-host-service"),
        ("/", "python /home/kt/ktrdr/ib-host-service/main.py", &[], "ktrdr-ib-host-service"),
        ("/anywhere", "python main.py", &[5001], "ktrdr-ib-host-service"),
        ("/home/kt/training-host-service", "python main.py", &[], "ktrdr-training-host-service"),
        ("/anywhere", "python main.py", &[5002], "ktrdr-training-host-service"),
        ("/app", backtest, &[5003], "ktrdr-backtest-worker-5003"),
        ("/app", backtest, &[5004], "ktrdr-backtest-worker-5004"),
        ("/app", backtest, &[], "ktrdr-backtest-worker"),
        ("/app", &format!("{backtest} --port 5007"), &[], "ktrdr-backtest-worker-5007"),
        ("/app", training, &[5002], "ktrdr-training-worker-5002"),
        ("/app", training, &[5006, 9090], "ktrdr-training-worker-5006"),
        ("/app", &format!("{training} --port=5008"), &[], "ktrdr-training-worker-5008"),
        ("/home/kt", "/home/kt/venv/bin/python /home/kt/venv/bin/ktrdr data load AAPL", &[], "ktrdr-cli"),
        ("/home/kt", "python .venv/bin/ktrdr", &[], "ktrdr-cli"),
        ("/home/kt", "python -m ktrdr.cli data", &[], "ktrdr-cli"),
        ("/mcp", "python -m src.main", &[], "ktrdr-mcp-server"),
        ("/home/kt/ktrdr/mcp", "python -m src.main", &[], "ktrdr-mcp-server"),
        ("/opt", "java -cp jts.jar ibgateway.GWClient", &[], "ib-gateway"),
        ("/opt", "java -cp x.jar com.acme.Anything", &[4002], "ib-gateway"),
    ] {
        assert_eq!(name(cwd, line, ports), (want.to_owned(), Builtin), "{line} {ports:?}");
    }
}

#[test]
fn spawned_children_do_their_parents_work() {
    let namer = Namer::new(&Services::default());
    let child = spawned("/home/kt/ib-host-service");
    let parent = process("/home/kt/ib-host-service", "python main.py");
    assert_eq!(name_of(&namer, &child, &parent, &[5001]).0, "ktrdr-ib-host-service");
    assert_eq!(name_of(&namer, &child, &parent, &[]).0, "ktrdr-ib-host-service");
    let worker = process("/app", "python -m uvicorn ktrdr.training.training_worker:app --reload --port 5005");
    assert_eq!(name_of(&namer, &spawned("/app"), &worker, &[]).0, "ktrdr-training-worker-5005");
    let shop = process("/srv/x", "python -m uvicorn shop.main:app --reload");
    assert_eq!(name_of(&namer, &spawned("/srv/x"), &shop, &[80]), ("shop".to_owned(), Guess));
    // The parent is gone: ports and directory are what is left.
    assert_eq!(name_of(&namer, &child, &child, &[5001]).0, "ktrdr-ib-host-service");
    assert_eq!(name_of(&namer, &child, &child, &[]), ("ib-host-service".to_owned(), Guess));
}

#[test]
fn a_port_does_not_rename_another_program() {
    for (line, ports, want) in [
        ("nginx -g daemon", &[5001][..], "nginx"),
        ("node server.js", &[8000], "shopping"),
        ("python -m http.server 5001", &[5001], "http.server"),
        ("python -m uvicorn shop.api:app", &[8000], "shop.api"),
        ("python echo_server.py", &[5002], "echo_server"),
        ("python main.py", &[4002], "shopping"),
        ("python main.py", &[5432], "shopping"),
        ("grep ktrdr.api.main:app", &[], "grep"),
        ("python main.py", &[9999], "shopping"),
    ] {
        assert_eq!(name("/srv/shopping", line, ports), (want.to_owned(), Guess), "{line}");
    }
}

#[test]
fn guesses_name_what_people_call_their_service() {
    for (cwd, line, want) in [
        ("/srv/pay", "python -m uvicorn pay.main:app", "pay"),
        ("/srv/pay", "python /venv/bin/gunicorn -w 4 -b 0.0.0.0:80 shop.wsgi", "shop"),
        ("/srv/pay", "python /venv/bin/gunicorn --bind localhost:80 main:app", "pay"),
        ("/srv/pay", "python /venv/bin/hypercorn src.main:app", "pay"),
        ("/srv/pay", "python -m hypercorn orders:create_app()", "orders"),
        ("/srv/pay", "python /venv/bin/granian --interface asgi billing.app:app", "billing"),
        ("/srv/pay", "python -m flask --app hello run", "hello"),
        ("/srv/pay", "python /venv/bin/flask run", "pay"),
        ("/srv/pay", "python /venv/bin/fastapi run app/main.py", "pay"),
        ("/srv/pay", "python /venv/bin/celery -A proj.tasks worker", "proj.tasks"),
        ("/srv/pay", "python manage.py runserver 8000", "pay"),
        ("/srv/pay", "python -m pkg.mod", "pkg.mod"),
        ("/srv/pay", "python -m pkg.__main__", "pkg"),
        ("/srv/pay/src", "python -u main.py", "pay"),
        ("/home/ann/pay", "python3.12 run.py", "pay"),
        ("/home/ann", "python3.12 run.py", "run"),
        ("/app", "python main.py", "main"),
        ("/app", "python", "python"),
        ("/tmp", "python worker.py --x", "worker"),
        ("/tmp", "python /srv/ledger/app.py", "ledger"),
        ("/tmp", "/usr/bin/pypy3 tool.py", "tool"),
        ("/srv/web", "node dist/index.js", "web"),
        ("/srv/web", "node --require ./otel.js -C prod gateway.js", "gateway"),
        ("/srv/web", "node /usr/lib/node_modules/npm/bin/npm-cli.js start", "npm"),
        ("/srv/web", "node /x/node_modules/@acme/proxy/bin.js", "proxy"),
        ("/srv/web", "node", "web"),
        ("/srv/web", "bun run server.ts", "web"),
        ("/x", "java -Xmx1g -jar /opt/shop-1.2.3-SNAPSHOT.jar --p", "shop"),
        ("/x", "java -cp a:b com.acme.shop.Main", "shop"),
        ("/x", "java com.acme.OrderService", "OrderService"),
        ("/x", "java -m mod/com.acme.Tool", "Tool"),
        ("/x", "java -version", "java"),
        ("/x", "dotnet /app/Shop.Api.dll", "Shop.Api"),
        ("/x", "ruby bin/rails.rb", "rails"),
        ("/x", "bash /opt/backup.sh", "backup"),
        ("/x", "/usr/sbin/php-fpm8.2 -F", "php-fpm"),
        ("/x", "/usr/sbin/nginx -g x", "nginx"),
        ("/srv/ledger", "/srv/ledger/server --addr :80", "ledger"),
        ("/", "/usr/local/bin/k8s-proxy2", "k8s-proxy2"),
    ] {
        assert_eq!(name(cwd, line, &[]), (want.to_owned(), Guess), "{line}");
    }
    let namer = Namer::new(&Services::default());
    let title = Process { args: vec!["gunicorn: worker [shop.wsgi:app]".into()], ..process("/x", "python") };
    assert_eq!(name_of(&namer, &title, &title, &[]).0, "shop");
    let nginx = Process { args: vec!["nginx: worker process".into()], ..process("/x", "/usr/sbin/nginx") };
    assert_eq!(name_of(&namer, &nginx, &nginx, &[]).0, "nginx");
    let nothing = Process { pid: 9, ..Process::default() };
    assert_eq!(name_of(&namer, &nothing, &nothing, &[]).0, "pid-9");
}

fn services(toml: &str) -> Namer {
    Namer::new(&toml::from_str(toml).unwrap())
}

#[test]
fn the_configuration_comes_first_then_the_environment() {
    let namer = services(
        "namespace = 'all'\n\
         [[rules]]\nname = 'both'\nports = [8000]\ncommand = '*uvicorn*'\nversion = '2'\nnamespace = 'own'\n\
         [[rules]]\nname = 'shop-{port}-{dir}'\nexecutable = 'python*'\ncwd = '/srv/*'\n\
         [[rules]]\nname = '{container}'\ncontainer = 'web*'\n",
    );
    let mut p = process("/app", "python -m uvicorn ktrdr.api.main:app");
    assert_eq!(name_of(&namer, &p, &p, &[8000]), ("both".into(), Config));
    assert_eq!(name_of(&namer, &p, &p, &[]), ("ktrdr-api".into(), Builtin));
    p.otel.attributes = vec![("service.name".into(), "attr".into()), ("service.version".into(), "7".into())];
    assert_eq!(name_of(&namer, &p, &p, &[]), ("attr".into(), Environment));
    p.otel.service_name = Some("env".into());
    assert_eq!(name_of(&namer, &p, &p, &[]), ("env".into(), Environment));
    assert_eq!(name_of(&namer, &p, &p, &[8000]), ("both".into(), Config));

    let none = ContainerNames::default();
    let full = |ports| namer.name(&Subject { process: &p, origin: &p, ports, container: &none });
    assert_eq!((full(&[8000]).namespace.as_str(), full(&[8000]).version.as_str()), ("own", "2"));
    assert_eq!((full(&[]).namespace.as_str(), full(&[]).version.as_str()), ("all", "7"));

    let dir = process("/srv/pay", "python x.py");
    assert_eq!(name_of(&namer, &dir, &dir, &[]).0, "shop-pay");
    assert_eq!(name_of(&namer, &dir, &dir, &[81]).0, "shop-81-pay");

    let container = ContainerNames { name: "web-1".into(), ..none };
    let nginx = process("/", "nginx");
    let named = namer.name(&Subject { process: &nginx, origin: &nginx, ports: &[], container: &container });
    assert_eq!((named.name.as_str(), named.source), ("web-1", Config));
}

#[test]
fn containers_match_by_name_or_id_and_name_what_says_nothing() {
    let id = "0123456789abcdef".repeat(4);
    let namer = services("[[rules]]\nname = 'by-id'\ncontainer = '0123456789ab'\n");
    let mut p = process("/app", "python main.py");
    let container = ContainerNames { name: "ledger".into(), ..ContainerNames::default() };
    let name =
        |p: &Process| namer.name(&Subject { process: p, origin: p, ports: &[], container: &container }).name;
    assert_eq!(name(&p), "ledger");
    p.container = Some(Container { id, ..Container::default() });
    assert_eq!(name(&p), "by-id");
}

#[test]
fn ktrdr_can_be_switched_off() {
    let namer = services("ktrdr = false");
    let p = process("/app", "python -m uvicorn ktrdr.api.main:app");
    assert_eq!(name_of(&namer, &p, &p, &[8000]), ("ktrdr.api".into(), Guess));
    assert_eq!(namer.peer(4002), None);
    assert!(namer.port_names().is_empty());
}

#[test]
fn peers_are_known_by_their_port() {
    let namer = services(
        "[[rules]]\nname = 'shop-{port}'\nports = [9000, 8000]\n[[rules]]\nname = 'x'\nports = [1]\ncwd = '/'\n",
    );
    let peer = |port| namer.peer(port).unwrap_or_default();
    assert_eq!(peer(9000), "shop-9000");
    assert_eq!(peer(8000), "shop-8000");
    assert_eq!((peer(1), peer(12345)), (String::new(), String::new()));
    for port in [4001, 4002, 7496, 7497] {
        assert_eq!(peer(port), "ib-gateway");
    }
    assert_eq!(
        (peer(5001).as_str(), peer(5002).as_str()),
        ("ktrdr-ib-host-service", "ktrdr-training-host-service")
    );
    let all = namer.port_names();
    assert!(
        all.is_sorted() && all.contains(&(9000, "shop-9000".into())) && !all.iter().any(|(p, _)| *p == 1)
    );
}

proptest::proptest! {
    #[test]
    fn every_command_line_has_a_name(args: Vec<String>, exe in "(/[a-z0-9.-]{0,8}){0,3}|python3|node|java", cwd: String) {
        let p = Process { pid: 1, args, exe, cwd, ..Process::default() };
        let (name, _) = name_of(&Namer::new(&Services::default()), &p, &p, &[5003]);
        proptest::prop_assert!(!name.is_empty() && name.len() <= 4 * MAX_NAME && !name.contains('\n'));
    }
}
