//! Two replicas on this machine and a balancer before them, with the configuration that docs/server.md shows.

use crate::client::{Reply, ask};
use crate::patience::{ended, signal, started, told, until};
use crate::place::Place;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The addresses that the document shows.
const SHOWN: [&str; 2] = ["10.0.0.11:8080", "10.0.0.12:8080"];

/// A letter for the role, a line for each message.
const TEMPLATE: &str = "{% for m in messages %}{{ m.role[0] }}: {{ m.content }}\n{% endfor %}{% if \
                        add_generation_prompt %}a:{% endif %}";

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Balancer {
    Haproxy,
    Nginx,
}

/// What a test changes of what a fleet is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changes {
    /// Further arguments of each replica.
    pub(crate) serve: &'static [&'static str],
    /// A text of both configurations, and what stands there instead.
    pub(crate) configuration: Option<(&'static str, &'static str)>,
}

pub(crate) struct Replica {
    name: &'static str,
    pub(crate) address: SocketAddr,
    child: Child,
}

pub(crate) struct Fleet {
    pub(crate) balancer: Balancer,
    /// Where the balancer listens.
    pub(crate) address: SocketAddr,
    pub(crate) replicas: [Replica; 2],
    changes: Changes,
    process: Child,
    place: Place,
}

/// A fleet behind each balancer that is there, one after the other; a line for each that is not.
pub(crate) fn fleets(changes: Changes) -> impl Iterator<Item = Fleet> {
    let named = [(Balancer::Haproxy, "OFFRAMP_HAPROXY"), (Balancer::Nginx, "OFFRAMP_NGINX")];
    named.into_iter().filter_map(move |(balancer, variable)| {
        let program = std::env::var(variable).ok().filter(|program| !program.is_empty());
        let Some(program) = program else {
            eprintln!("skipped: {variable} names no {balancer:?} (crates/serve/test finds one)");
            return None;
        };
        Some(Fleet::start(balancer, &program, changes))
    })
}

/// The block of docs/server.md that begins with this mark.
fn shown(mark: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/server.md");
    let text = fs::read_to_string(path).unwrap();
    let fence = format!("\n```{mark}\n");
    let mut blocks = text.split(&fence).skip(1);
    let block = blocks.next().unwrap_or_else(|| panic!("docs/server.md shows no {mark}"));
    assert!(blocks.next().is_none(), "docs/server.md shows {mark} twice");
    block.split("\n```\n").next().unwrap().to_owned() + "\n"
}

#[track_caller]
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "docs/server.md shows no {from:?}");
    text.replace(from, to)
}

/// A port that nobody has, below those that the system gives to clients.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) as u32;
        let port = 12_000 + ((std::process::id() * 64 + step) % 18_000) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The carried model as a folder, with a chat template.
fn place() -> Place {
    let place = Place::empty();
    let carried = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tinystories-24");
    fs::create_dir(place.path("model")).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(carried.join(name), place.path("model").join(name)).unwrap();
    }
    place.write("model/chat_template.jinja", TEMPLATE);
    place
}

impl Balancer {
    /// The program with the configuration that is shown, for these addresses.
    fn command(self, program: &str, place: &Place, configuration: &str) -> Command {
        let mut command = Command::new(program);
        let path = |name: &str| place.path(name).display().to_string();
        match self {
            Self::Haproxy => {
                // What only root may, and the log of a system.
                let of_root = |line: &&str| {
                    ["user ", "group ", "log "].iter().any(|word| line.trim_start().starts_with(word))
                };
                let lines: Vec<&str> = configuration.lines().filter(|line| !of_root(line)).collect();
                place.write("haproxy.cfg", lines.join("\n") + "\n");
                command.args(["-db", "-f", &path("haproxy.cfg")]);
            }
            Self::Nginx => {
                // The rest of a system's nginx.conf, with its folders here.
                let folder = |what: &str| format!("{what}_temp_path {};\n", path(what));
                let folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(folder).concat();
                let (pid, log) = (path("nginx.pid"), path("nginx.err"));
                let rest = format!(
                    "user root;\ndaemon off;\npid {pid};\nerror_log {log};\nworker_processes 2;\nevents {{}}\n"
                );
                place.write(
                    "nginx.conf",
                    format!("{rest}http {{\naccess_log off;\n{folders}{configuration}}}\n"),
                );
                command.args(["-e", &log, "-c", &path("nginx.conf")]);
            }
        }
        command
    }

    fn configuration(self, port: u16, replicas: [SocketAddr; 2]) -> String {
        let (mark, listens) = match self {
            Self::Haproxy => ("haproxy", "bind :8000"),
            Self::Nginx => ("nginx", "listen 8000"),
        };
        let word = listens.split([' ', ':']).next().unwrap();
        let mut text = replaced(&shown(mark), listens, &format!("{word} {}", local(port)));
        for (from, to) in SHOWN.iter().zip(replicas) {
            text = replaced(&text, from, &to.to_string());
        }
        text
    }
}

impl Replica {
    fn start(name: &'static str, port: u16, place: &Place, more: &[&str]) -> Self {
        let port_text = port.to_string();
        let arguments = ["serve", "model", "--port", &port_text, "--api-key", crate::client::KEY];
        let mut child = started(place, name, &[&arguments, more].concat());
        until(&mut child, || told(place, &format!("{name}.err")).contains("listening on http://"));
        Self { name, address: local(port), child }
    }

    /// The sum of a metric's samples, or the sample with these labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = ask(self.address, "/metrics", None).body;
        let of_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let value = |line: &str| -> f64 { line.rsplit(' ').next().unwrap().parse().unwrap() };
        text.lines().filter(of_it).map(value).sum()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Waits for its end; the exit code, or `None` where it was killed.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        ended(&mut self.child).code()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Fleet {
    fn start(balancer: Balancer, program: &str, changes: Changes) -> Self {
        let place = place();
        let replicas = ["one", "two"].map(|name| Replica::start(name, free_port(), &place, changes.serve));
        let port = free_port();
        let mut text = balancer.configuration(port, [replicas[0].address, replicas[1].address]);
        if let Some((from, to)) = changes.configuration {
            text = replaced(&text, from, to);
        }
        let mut command = balancer.command(program, &place, &text);
        let log = fs::File::create(place.path("balancer.err")).unwrap();
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut fleet = Self { balancer, address: local(port), replicas, changes, process, place };
        fleet.wait(|fleet| TcpStream::connect(fleet.address).is_ok());
        fleet
    }

    /// Waits until something is so.
    #[track_caller]
    pub(crate) fn wait(&mut self, mut is_so: impl FnMut(&mut Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            let log = told(&self.place, "balancer.err") + &told(&self.place, "nginx.err");
            assert!(self.process.try_wait().unwrap().is_none(), "{:?} ended: {log}", self.balancer);
            assert!(began.elapsed() < Duration::from_secs(120), "{:?}: it never comes: {log}", self.balancer);
            sleep(Duration::from_millis(5));
        }
    }

    /// Asks through the balancer, while nobody else does, and also says which replica has answered.
    #[track_caller]
    pub(crate) fn who_answers(&self, path: &str, body: &str) -> (usize, Reply) {
        let texts = || [0, 1].map(|index| self.replicas[index].metric("offramp_texts_total"));
        let before = texts();
        let reply = ask(self.address, path, Some(body));
        assert_eq!(reply.status, 200, "{:?}: {body}: {}", self.balancer, reply.body);
        let after = texts();
        let has_answered: Vec<usize> = (0..2).filter(|&index| after[index] > before[index]).collect();
        assert_eq!(has_answered.len(), 1, "{:?}: {before:?}, then {after:?}", self.balancer);
        (has_answered[0], reply)
    }

    /// Starts a replica that has ended, where it was.
    pub(crate) fn start_again(&mut self, index: usize) {
        let (name, port) = (self.replicas[index].name, self.replicas[index].address.port());
        self.replicas[index] = Replica::start(name, port, &self.place, self.changes.serve);
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // nginx ends its workers only where it is asked to.
        let process = self.process.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &process]).stderr(Stdio::null()).status();
        let _ = self.process.wait();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
