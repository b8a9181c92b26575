//! Models by their names on the hub, from outside: downloaded, found again, listed, removed.

use crate::mock_hub::{COMMIT, File, MockHub, Model, Reply};
use crate::place::{Place, Ran};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A place with a trained model, and a hub that has it.
struct World {
    place: Place,
    hub: MockHub,
}

/// Files whose digests nobody can check: these are tested where downloads are.
fn file(path: &Path) -> File {
    let bytes = std::fs::read(path).unwrap();
    let etag = format!(
        "e{:x}x{}",
        bytes.iter().fold(7u64, |sum, byte| sum * 31 % 1_000_003 + u64::from(*byte)),
        bytes.len()
    );
    File { large: bytes.len() > 20_000, etag, bytes }
}

impl World {
    fn new() -> Self {
        let world = Self { place: Place::trained(), hub: MockHub::start() };
        world.hub.add("org/name", world.folder("run/model"));
        world
    }

    /// The files of a folder, as a model of the hub.
    fn folder(&self, name: &str) -> Model {
        let mut model = Model::new([]);
        for entry in std::fs::read_dir(self.place.path(name)).unwrap().map(Result::unwrap) {
            model.files.insert(entry.file_name().into_string().unwrap(), file(&entry.path()));
        }
        model.files.insert(
            "pytorch_model.bin".to_owned(),
            File { bytes: vec![7; 30_000], etag: "b".to_owned(), large: true },
        );
        model
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.command(arguments);
        command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", self.hub.endpoint());
        command.env("HF_HUB_CACHE", self.place.path("cache"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    #[track_caller]
    fn good(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
        ran.stdout
    }

    /// The files that were asked for since the last call.
    fn asked(&self) -> Vec<String> {
        let requests = self.hub.requests();
        let files = requests.iter().filter_map(|request| request.path.split_once("/resolve/"));
        let mut files: Vec<_> = files.map(|(_, rest)| rest.split_once('/').unwrap().1.to_owned()).collect();
        files.sort();
        files
    }
}

#[test]
fn every_command_takes_a_name_and_downloads_what_it_needs_once() {
    let world = World::new();
    let here = world.place.good(&["generate", "run", "--prompt", "The heron", "--temperature", "0"]);
    let ran = world.run(&["generate", "org/name", "--prompt", "The heron", "--temperature", "0"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, here.as_str()), "{}", ran.stderr);
    let asked = world.asked();
    let wanted = [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(asked, wanted, "and neither the card nor PyTorch's weights");
    for arguments in [
        &["inspect", "org/name"][..],
        &["eval", "https://huggingface.co/org/name", "--data", "valid.txt"],
        &["bench", "org/name", "--prompt-tokens", "4", "--new-tokens", "2", "--runs", "1"],
        &[
            "verify",
            "org/name",
            "--prompts",
            "1",
            "--max-new-tokens",
            "4",
            "--prompt-tokens",
            "4",
            "--data",
            "valid.txt",
        ],
        &["quantize", "org/name", "--to", "int8", "--out", "int8"],
        &["export", "org/name", "--gguf", "x.gguf"],
    ] {
        world.good(arguments);
    }
    assert!(world.hub.requests().is_empty(), "what is there is used without a question");
    let header = world.place.read("x.gguf");
    assert!(header.windows(8).any(|word| word == b"org/name"), "the exported file is called so too");
    let offline = world.command(&["inspect", "org/name"]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert!(Ran::of(offline).stdout.contains(COMMIT));
}

#[test]
fn pull_asks_the_hub_and_says_what_moved() {
    let world = World::new();
    let path = world.good(&["pull", "org/name"]);
    assert!(path.trim_end().ends_with(COMMIT) && Path::new(path.trim_end()).is_dir(), "{path}");
    let mut next = world.folder("run/model");
    next.commit = "f".repeat(40);
    next.files
        .insert("README.md".to_owned(), File { bytes: b"new".to_vec(), etag: "r2".to_owned(), large: false });
    world.hub.add("org/name", next);
    assert!(world.good(&["inspect", "org/name"]).contains(COMMIT), "until it is asked");
    world.asked();
    let ran = world.run(&["pull", "org/name"]);
    assert!(ran.stderr.contains("main moved from 012345678901 to ffffffffffff"), "{}", ran.stderr);
    assert_eq!(world.asked(), [""; 0], "no file that is needed changed");
    assert!(world.good(&["inspect", "org/name"]).contains("ffffffffffff"));
    assert!(world.good(&["inspect", &format!("org/name@{COMMIT}")]).contains(COMMIT), "the old one stays");
}

#[test]
fn a_gguf_file_is_named_by_its_quantization() {
    let world = World::new();
    let mut model = Model::new([]);
    for kind in ["f32", "bf16"] {
        let name = format!("tiny-{kind}.gguf");
        world.place.good(&["export", "run", "--gguf", &name, "--type", kind]);
        model.files.insert(format!("sub/{name}"), file(&world.place.path(&name)));
    }
    world.hub.add("org/tiny-GGUF", model);
    let text = |name: &str| world.good(&["generate", name, "--prompt", "The", "--temperature", "0"]);
    assert_eq!(text("org/tiny-GGUF:F32"), text("tiny-f32.gguf"));
    assert_eq!(world.asked(), ["sub/tiny-f32.gguf"]);
    assert!(
        world.good(&["pull", "org/tiny-GGUF"]).ends_with("sub/tiny-bf16.gguf\n"),
        "the first of those that are preferred"
    );
    world
        .run(&["inspect", "org/tiny-GGUF:Q4_K_M"])
        .assert_error(2, &["no file or quantization Q4_K_M: it has bf16, f32"]);
    let listed = world.good(&["list"]);
    assert!(listed.contains("org/tiny-GGUF:f32") && listed.contains("org/tiny-GGUF:bf16"), "{listed}");
    world.good(&["remove", "org/tiny-GGUF:f32"]);
    assert!(!world.good(&["list"]).contains(":f32"));
}

#[test]
fn what_is_in_the_cache_is_listed_and_removed() {
    let world = World::new();
    assert!(world.good(&["list"]).contains("`offramp pull ORG/NAME`"));
    world.good(&["pull", "org/name"]);
    let listed = world.good(&["list"]);
    let row = listed.lines().find(|line| line.contains("org/name")).unwrap();
    for cell in ["llama", "4", "F32", "yes"] {
        assert!(row.contains(cell), "{cell}: {listed}");
    }
    let json: serde_json::Value = serde_json::from_str(&world.good(&["list", "--json"])).unwrap();
    let model = &json["models"][0];
    assert_eq!((model["name"].as_str(), model["commit"].as_str()), (Some("org/name"), Some(COMMIT)));
    world
        .run(&["remove", "org/other"])
        .assert_error(2, &["org/other is not in the hub's cache", "offramp list"]);
    world.run(&["remove", "../run"]).assert_error(2, &["no name on the hub"]);
    assert!(world.good(&["remove", "org/name"]).starts_with("removed org/name, "));
    assert!(!world.place.path("cache/models--org--name").exists());
}

#[test]
fn what_cannot_run_here_is_not_downloaded() {
    let world = World::new();
    let with = |name: &str, config: &str, files: &[&str]| {
        let text = |text: &str| File {
            bytes: text.as_bytes().to_vec(),
            etag: format!("e{}", text.len()),
            large: false,
        };
        let mut model = Model::new([]);
        if !config.is_empty() {
            model.files.insert("config.json".to_owned(), text(config));
        }
        model.files.extend(files.iter().map(|name| ((*name).to_owned(), text("x"))));
        world.hub.add(name, model);
        world.run(&["generate", name])
    };
    with("org/bert", r#"{"model_type": "bert"}"#, &["model.safetensors"]).assert_error(2, &["bert"]);
    assert_eq!(world.asked(), ["config.json"]);
    with("org/bin", "{}", &["pytorch_model.bin"]).assert_error(2, &["PyTorch's", "hf download org/bin"]);
    with("org/lora", "", &["adapter_config.json"]).assert_error(2, &["adapter", "hf download org/lora"]);
    with("org/none", "", &["README.md"]).assert_error(2, &["no GGUF file"]);
    with("org/part", "{}", &["model-00001-of-00002.safetensors"]).assert_error(2, &["index.json is not"]);
    assert_eq!(world.asked(), [""; 0]);
}

#[test]
fn what_is_not_there_has_its_line() {
    let world = World::new();
    world.run(&["generate", "org/nome"]).assert_error(2, &["no folder org/nome", "did you mean org/name?"]);
    let offline = world.command(&["generate", "org/name"]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    Ran::of(offline).assert_error(2, &["HF_HUB_OFFLINE", "`offramp pull org/name`"]);
    let nobody =
        world.command(&["generate", "org/name"]).env("HF_ENDPOINT", "http://127.0.0.1:9").output().unwrap();
    Ran::of(nobody).assert_error(1, &["no folder org/name", "127.0.0.1:9 cannot be asked"]);
    let odd = world.command(&["generate", "org/name"]).env("HF_ENDPOINT", "ftp://x").output().unwrap();
    Ran::of(odd).assert_error(2, &["HF_ENDPOINT", "https://"]);
    world.run(&["pull", "name"]).assert_error(2, &["no name on the hub", "ORG/NAME"]);
    std::fs::create_dir(world.place.path("org")).unwrap();
    world.run(&["generate", "org/name"]).assert_error(2, &["there is nothing there", "hf://org/name"]);
    world.good(&["inspect", "hf://org/name"]);
}

/// A process that is killed leaves a beginning, from which the next goes on.
#[test]
fn a_killed_download_goes_on() {
    let world = World::new();
    world.hub.twist(|request, reply| match request.elsewhere {
        true => Reply { stall: Some(Duration::from_secs(30)), ..reply },
        false => reply,
    });
    let mut child =
        world.command(&["pull", "org/name"]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    // The weights alone: a small file that is cut off begins anew.
    let etag = file(&world.place.path("run/model/model.safetensors")).etag;
    let beginning = world.place.path(&format!("cache/models--org--name/blobs/{etag}.incomplete"));
    let begun = || std::fs::metadata(&beginning).is_ok_and(|found| found.len() > 1000);
    while !begun() {
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    world.hub.behave();
    world.hub.requests();
    world.good(&["generate", "org/name", "--prompt", "The heron", "--max-new-tokens", "2"]);
    let away: Vec<_> = world.hub.requests().into_iter().filter(|request| request.elsewhere).collect();
    assert!(away.iter().any(|request| request.headers.contains_key("range")), "{away:?}");
}
