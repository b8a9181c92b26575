//! What people have in place of a model folder, and the one line with the next step that each gets.

use offramp_model::checkpoint::{resolve, save};
use offramp_model::{Config, Formats, Llama};
use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// As git-lfs writes it.
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 1,
    "num_attention_heads": 2, "vocab_size": 5}"#;

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Files with these contents, in folders that need not be there.
    fn with(self, files: &[(&str, &str)]) -> Self {
        for (name, contents) in files {
            fs::create_dir_all(self.path(name).parent().expect("a folder")).expect("room");
            fs::write(self.path(name), contents).expect("room");
        }
        self
    }

    fn model(&self, name: &str) -> PathBuf {
        let config = Config::from_json(CONFIG, Path::new("config.json")).expect("a valid config");
        let folder = self.path(name);
        save(&folder, &config, &mut |spec| Cow::Owned(vec![0.5; spec.len()])).expect("room");
        folder
    }
}

/// The one line, which names the path and says all of `parts`.
#[track_caller]
fn refused(path: &Path, parts: &[&str]) {
    let error = resolve(path).and_then(|folder| Llama::load(&folder, &Formats::default()));
    let message = error.expect_err("no model").to_string();
    let start = path.display().to_string();
    assert!(message.starts_with(&start) && !message.contains('\n'), "{message}");
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

#[test]
fn a_folder_without_a_config_is_told_what_it_is() {
    let shard = "model-00001-of-00002.safetensors";
    for (files, parts) in [
        (
            &["adapter_config.json", "adapter_model.safetensors"][..],
            &["adapter", "peft", "merge_and_unload"][..],
        ),
        (&["params.json", "consolidated.00.pth", "tokenizer.model"], &["own layout", "config.json", "-hf"]),
        (&["tiny.Q4_K_M.gguf"], &["GGUF", "give one of them", "tiny.Q4_K_M.gguf"]),
        (&["model.safetensors"], &["no config.json", "copy config.json"]),
        (&[shard, "model.safetensors.index.json"], &["no config.json", "copy config.json"]),
        (&["pytorch_model.bin"], &["no config.json", "copy config.json"]),
        (&["notes.txt"], &["there is no config.json", "give a model folder"]),
    ] {
        let place = Place::new().with(&files.iter().map(|&name| (name, "x")).collect::<Vec<_>>());
        refused(place.0.path(), parts);
    }
}

#[test]
fn a_folder_without_weights_is_told_what_it_has() {
    let shard = "model-00001-of-00002.safetensors";
    for (files, parts) in [
        (&["pytorch_model.bin"][..], &["pytorch_model.bin", "save_pretrained('.')", "in that folder"][..]),
        (
            &["pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin"],
            &["PyTorch", "save_pretrained"],
        ),
        (&["consolidated.00.pth"], &["own layout"]),
        (&["adapter_config.json", "adapter_model.safetensors"], &["adapter", "merge_and_unload"]),
        (&["tiny.gguf"], &["GGUF"]),
        (&[shard], &[shard, "model.safetensors.index.json"]),
        (&["model.fp16.safetensors"], &["model.fp16.safetensors", "rename"]),
        (&["tokenizer.json"], &["neither model.safetensors nor model.safetensors.index.json"]),
    ] {
        let files: Vec<_> = files.iter().map(|&name| (name, "x")).chain([("config.json", CONFIG)]).collect();
        refused(Place::new().with(&files).0.path(), parts);
    }
}

#[test]
fn a_file_is_no_folder() {
    let place =
        Place::new().with(&[("a.gguf", "x"), ("b", "GGUF\u{3}"), ("model.safetensors", "x"), ("notes", "x")]);
    let file = place.path("a.gguf");
    assert_eq!(resolve(&file).expect("the model itself"), file);
    refused(&place.path("b"), &["GGUF", "offramp quantize"]);
    refused(&place.path("model.safetensors"), &["one file of a model", "give the folder"]);
    refused(&place.path("notes"), &["it is not a folder"]);
}

/// Whichever file it stands for, it says so, and not what a parser makes of it.
#[test]
fn a_git_lfs_pointer_is_one_in_place_of_any_file() {
    let shards = r#"{"weight_map": {"model.norm.weight": "a.safetensors"}}"#;
    let index = "model.safetensors.index.json";
    for (name, files) in [
        ("config.json", &[][..]),
        ("model.safetensors", &[("config.json", CONFIG)]),
        (index, &[("config.json", CONFIG)]),
        ("a.safetensors", &[("config.json", CONFIG), (index, shards)]),
    ] {
        let place = Place::new().with(files).with(&[(name, POINTER)]);
        let error = resolve(place.0.path()).and_then(|folder| Llama::load(&folder, &Formats::default()));
        let message = error.expect_err("no model").to_string();
        let told = format!("{name} is a git-lfs pointer");
        assert!(message.contains(&told) && message.contains("`git lfs pull`"), "{message}");
    }
}

#[test]
fn small_files_that_are_no_text_are_told() {
    let place = Place::new().with(&[("a/config.json", "")]);
    fs::create_dir_all(place.path("b")).expect("room");
    fs::write(place.path("b/config.json"), b"{\"model_type\": \"ll\xff\"}").expect("room");
    refused(&place.path("a"), &["config.json: it is empty"]);
    refused(&place.path("b"), &["config.json: byte 18 is not valid UTF-8"]);
}

#[test]
fn a_folder_of_the_hubs_cache_means_its_snapshot() {
    let place = Place::new();
    let root = place.path("models--org--name");
    let snapshot = |commit: &str| place.model(&format!("models--org--name/snapshots/{commit}"));
    let found = || resolve(&root).expect("a snapshot");
    let (old, main) = (snapshot("0000aaaa"), snapshot("1111bbbb"));
    let main_is = |text: &str| {
        fs::create_dir_all(root.join("refs")).expect("room");
        fs::write(root.join("refs/main"), text).expect("room");
    };
    main_is("0000aaaa");
    assert_eq!(found(), old);
    main_is("1111bbbb\n");
    assert_eq!(found(), main);
    // A ref that leaves the folder, or leads nowhere, is none.
    fs::create_dir_all(root.join("snapshots/2222cccc")).expect("room");
    let aside = place.model("aside");
    for ref_of_nothing in ["../../aside", aside.to_str().expect("UTF-8"), "..", "", "2222cccc", "absent"] {
        main_is(ref_of_nothing);
        assert!([&old, &main].contains(&&found()), "{ref_of_nothing}");
    }
    fs::remove_dir_all(root.join("refs")).expect("there");
    fs::remove_dir_all(&main).expect("there");
    assert_eq!(found(), old, "the only one");
    fs::remove_dir_all(&old).expect("there");
    refused(&root, &["none of the snapshots", "`offramp pull org/name`"]);
}

/// What a download that was cut leaves: names of files that are not there.
#[cfg(unix)]
#[test]
fn links_to_nothing_are_told() {
    use std::os::unix::fs::symlink;
    let place = Place::new().with(&[("config.json", CONFIG)]);
    symlink("../../blobs/absent", place.path("model.safetensors")).expect("a link");
    refused(place.0.path(), &["model.safetensors is a link to a file that is not there", "again"]);
    symlink("absent", place.path("link")).expect("a link");
    refused(&place.path("link"), &["it is a link to something that is not there"]);
}

/// Names on the hub are tried where a hub can be: see `crates/cli/tests/command/hub.rs`.
#[test]
fn what_is_neither_there_nor_a_name_on_the_hub_is_told() {
    let place = Place::new().with(&[("runs/a", "x")]);
    for name in ["src/modle", "/org/name", "../org", "a/b/c", "org/na me", "-org/name", "name"] {
        refused(Path::new(name), &["there is nothing there"]);
    }
    refused(&place.path("runs/modle"), &["there is nothing there"]);
}
