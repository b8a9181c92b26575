use super::*;
use crate::{Batch, Scratch};
use crate::{Error, Weights};
use crate::{Formats, Llama};
use serde_json::json;
use std::io;

fn config(tied: bool) -> Config {
    let json = json!({
        "model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 7, "tie_word_embeddings": tied,
        "max_position_embeddings": 16,
    });
    Config::from_json(&json.to_string(), Path::new("config.json")).unwrap()
}

fn values(spec: &TensorSpec) -> Vec<f32> {
    (0..spec.len()).map(|i| ((i * 7 + spec.name.len()) % 23) as f32 / 23.0 - 0.5).collect()
}

fn save_to(folder: &Path, config: &Config) -> Result<()> {
    save(folder, config, &mut |spec| values(spec).into()).map(drop)
}

fn names(folder: &Path) -> Vec<String> {
    let entries =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

fn logits(model: &Llama) -> Vec<f32> {
    let (mut hidden, mut cache, mut logits) = (model.new_hidden(), model.new_cache(4), Vec::new());
    model.embed(&[1, 2, 6, 0], &mut hidden).unwrap();
    model.forward(0..2, &mut hidden, &mut Batch::one(&mut cache), &mut Scratch::new()).unwrap();
    model.head(&hidden, 0..4, &mut logits, &mut Scratch::new());
    logits
}

#[test]
fn what_is_saved_is_loaded_bit_for_bit() {
    for tied in [true, false] {
        let (folder, config) = (tempfile::tempdir().unwrap(), config(tied));
        save_to(folder.path(), &config).unwrap();
        assert_eq!(names(folder.path()), ["config.json", "generation_config.json", "model.safetensors"]);
        let model = Llama::load(folder.path(), &Formats::default()).unwrap();
        assert_eq!(*model.config(), config);
        let memory = Llama::from_weights(config.clone(), |spec| Ok(values(spec))).unwrap();
        assert_eq!(logits(&model), logits(&memory));
        let weights = Weights::open(folder.path(), &config).unwrap();
        assert!(config.tensors().iter().all(|spec| weights.take(spec).unwrap().is_mapped()));
        // Replacing the file leaves what is mapped from the old one as it was.
        save(folder.path(), &config, &mut |spec| vec![0.5; spec.len()].into()).unwrap();
        assert_eq!(logits(&model), logits(&memory));
    }
}

#[test]
fn the_header_is_by_the_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("optimizer.safetensors");
    let specs = [TensorSpec::new("b", &[3]), TensorSpec::new("a", &[2, 2])];
    write_tensors(&path, &specs, &mut |spec| values(spec).into()).unwrap();
    let bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    assert_eq!((length % 8, bytes.len()), (0, 8 + length + 28));
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let expected = json!({
        "__metadata__": { "format": "pt" },
        "b": { "dtype": "F32", "shape": [3], "data_offsets": [0, 12] },
        "a": { "dtype": "F32", "shape": [2, 2], "data_offsets": [12, 28] },
    });
    assert_eq!(header, expected);
    let read = |specs: &[TensorSpec]| {
        let mut values: Vec<_> = specs.iter().map(|spec| vec![0.0; spec.len()]).collect();
        read_tensors(&path, specs, values.iter_mut().map(Vec::as_mut_slice)).map(|()| values)
    };
    assert_eq!(read(&specs).unwrap(), [values(&specs[0]), values(&specs[1])]);
    let misread = read(&[TensorSpec::new("b", &[3]), TensorSpec::new("a", &[4])]);
    assert!(misread.unwrap_err().to_string().contains("tensor a has shape [2, 2], expected [4]"));
}

#[test]
fn a_save_that_fails_leaves_no_trace() {
    let (folder, config) = (tempfile::tempdir().unwrap(), config(false));
    let target = folder.path().join("model");
    let short = save(&target, &config, &mut |spec| values(spec)[1..].to_vec().into());
    let message = short.unwrap_err().to_string();
    assert!(message.contains("model.embed_tokens.weight") && message.contains("[7, 8]"), "{message}");
    assert!(names(&target).is_empty());
    let twice = [TensorSpec::new("m", &[1]), TensorSpec::new("m", &[1])];
    let error = write_tensors(&target.join("x"), &twice, &mut |_| vec![0.0].into()).unwrap_err();
    assert!(matches!(error, Error::DuplicateTensor { .. }));
    let impossible = Config { num_key_value_heads: 0, ..config };
    assert!(save_to(&target, &impossible).unwrap_err().to_string().contains("num_key_value_heads is 0"));
    assert!(names(&target).is_empty());
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "no folder").unwrap();
    let message = save_to(&file.join("model"), &config(true)).unwrap_err().to_string();
    assert!(message.contains("file/model") && message.contains("check that the folder"), "{message}");
    let full = io::Error::from(io::ErrorKind::StorageFull);
    let message = write_atomically(&folder.path().join("a.json"), |_| Err(full)).unwrap_err().to_string();
    assert!(message.contains("a.json") && message.contains("free some space"), "{message}");
    assert_eq!(names(folder.path()), ["file"]);
}

#[test]
fn a_file_is_replaced_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    write_atomically(&path, |file| file.write_all(b"one")).unwrap();
    let torn = write_atomically(&path, |file| {
        file.write_all(b"half")?;
        Err(io::Error::other("killed"))
    });
    torn.unwrap_err();
    assert_eq!(fs::read(&path).unwrap(), b"one");
    write_atomically(&path, |file| file.write_all(b"two")).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two");
    assert_eq!(names(folder.path()), ["state.json"]);
}

#[test]
fn a_folder_is_replaced_whole_or_not_at_all() {
    let run = tempfile::tempdir().unwrap();
    let target = step_folder(run.path(), 120);
    replace_folder(&target, |folder| save_to(folder, &config(true))).unwrap();
    assert_eq!(names(run.path()), ["step-000120"]);
    let failed = replace_folder(&target, |folder| {
        save_to(folder, &config(false))?;
        Err(Error::json(folder, "a later file failed"))
    });
    failed.unwrap_err();
    assert!(Config::read(&target.join("config.json")).unwrap().tie_word_embeddings);
    fs::write(target.join("extra"), "of the old one").unwrap();
    replace_folder(&target, |folder| save_to(folder, &config(false))).unwrap();
    assert!(!Config::read(&target.join("config.json")).unwrap().tie_word_embeddings);
    assert_eq!(names(&target).len(), 3);
    assert_eq!(names(run.path()), ["step-000120"]);
}

#[test]
fn leftovers_of_a_killed_run_are_removed_and_nothing_else() {
    let run = tempfile::tempdir().unwrap();
    fs::create_dir(run.path().join(".offramp-step-000120-77.partial")).unwrap();
    fs::write(run.path().join(".offramp-step-000120-77.partial/config.json"), "{").unwrap();
    fs::write(run.path().join(".offramp-x1.partial"), "half").unwrap();
    fs::write(run.path().join("mine.partial"), "keep").unwrap();
    remove_leftovers(run.path());
    assert_eq!(names(run.path()), ["mine.partial"]);
}

/// A process killed between the two renames, and one killed just after them.
#[test]
fn a_folder_set_aside_by_a_killed_run_comes_back_or_goes() {
    let run = tempfile::tempdir().unwrap();
    let file = |folder: &str, content: &str| {
        fs::create_dir_all(run.path().join(folder)).unwrap();
        fs::write(run.path().join(folder).join("config.json"), content).unwrap();
    };
    file(".offramp-my-model-77.replaced", "the old one, whole");
    file(".offramp-my-model-77.partial", "the new one");
    file(".offramp-step-000120-77.replaced", "replaced");
    file("step-000120", "new");
    remove_leftovers(run.path());
    assert_eq!(names(run.path()), ["my-model", "step-000120"]);
    let content = |folder: &str| fs::read_to_string(run.path().join(folder).join("config.json")).unwrap();
    assert_eq!((content("my-model"), content("step-000120")), ("the old one, whole".into(), "new".into()));
}

#[test]
fn a_run_folder_means_its_model_or_its_newest_step() {
    let run = tempfile::tempdir().unwrap();
    let refused = |path: &Path, reason: &str| {
        let message = resolve(path).unwrap_err().to_string();
        assert!(message.contains(reason) && !message.contains('\n'), "{message}");
    };
    refused(run.path(), "there is no config.json, no model/ and no step-NNNNNN/");
    refused(&run.path().join("absent"), "there is nothing there");
    for step in [80, 1_000_000, 120] {
        save_to(&step_folder(run.path(), step), &config(true)).unwrap();
    }
    fs::create_dir(step_folder(run.path(), 2_000_000)).unwrap(); // without a config: not a checkpoint
    fs::create_dir(run.path().join("step-last")).unwrap();
    let found: Vec<u64> = steps(run.path()).unwrap().into_iter().map(|(step, _)| step).collect();
    assert_eq!(found, [80, 120, 1_000_000]);
    assert_eq!(resolve(run.path()).unwrap(), run.path().join("step-1000000"));
    let step = step_folder(run.path(), 80);
    assert_eq!(step.file_name().unwrap(), "step-000080");
    assert_eq!(resolve(&step).unwrap(), step);
    save_to(&run.path().join("model"), &config(true)).unwrap();
    assert_eq!(resolve(run.path()).unwrap(), run.path().join("model"));
    refused(
        &run.path().join("model/config.json"),
        "it is one file of a model: give the folder that it lies in",
    );
    fs::write(run.path().join("notes"), "").unwrap();
    refused(&run.path().join("notes"), "it is not a folder");
}
