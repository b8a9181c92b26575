//! The files of a checkpoint: their sizes, writing them, and reading them. No function holds a second copy of
//! the weights or the moments.

use super::data::Data;
use super::together::Moment;
use super::trainer::Trainer;
use crate::error::{Error, Result};
use crate::parameters::Layout;
use offramp_model::checkpoint::{self, Checksums, free_space, tensors_size, write_atomically, write_tensors};
use offramp_model::run_folder::{EXITS, OPTIMIZER, STATE, TOKENIZER, TOKENIZER_CONFIG};
use offramp_model::{TensorSpec, Weights};
use offramp_ranks::Ranks;
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

/// For the small files, and for what the file system itself uses.
const SLACK: u64 = 1 << 20;

/// Writes a model folder: config, weights, tokenizer. The weights are the trainer's, or an average of them.
pub(super) fn write_model(
    folder: &Path,
    weights: &[f32],
    trainer: &Trainer,
    data: &Data,
) -> offramp_model::Result<Checksums> {
    if let Some(over) = &trainer.over {
        return write_over(folder, over, trainer);
    }
    let places: Vec<_> = trainer.layout().tensors().collect();
    let mut places = places.into_iter();
    let mut files = checkpoint::save(folder, trainer.config(), &mut |spec| {
        let (_, range) = places.find(|(place, _)| *place == spec).expect("the layout has the config's order");
        Cow::Borrowed(&weights[range])
    })?;
    let how = data.tokenizer.transformers_json(trainer.config().max_position_embeddings);
    for (name, bytes) in [(TOKENIZER, &data.tokenizer_json[..]), (TOKENIZER_CONFIG, how.as_bytes())] {
        let written = write_atomically(&folder.join(name), |file| file.write_all(bytes))?;
        files.insert(name.to_owned(), written);
    }
    Ok(files)
}

/// Writes a copy of the model that stays as it is, file by file, and beside it the adapters of its exits.
fn write_over(folder: &Path, over: &Path, trainer: &Trainer) -> offramp_model::Result<Checksums> {
    let mut files = Checksums::new();
    for name in base_files(over)? {
        let from = over.join(&name);
        let copy = |out: &mut dyn Write| io::copy(&mut File::open(&from)?, out).map(drop);
        let written = write_atomically(&folder.join(&name), copy)?;
        files.insert(name, written);
    }
    let layout = trainer.layout();
    let specs: Vec<_> = layout.own_heads().map(|(spec, _)| spec.clone()).collect();
    let mut places = layout.own_heads();
    let written = write_tensors(&folder.join(EXITS), &specs, &mut |_| {
        let (_, range) = places.next().expect("as many places as tensors");
        Cow::Borrowed(&trainer.weights[range])
    })?;
    files.insert(EXITS.to_owned(), written);
    Ok(files)
}

/// The files of a model folder that are the model: no card, whose numbers are of other exits, and nothing of
/// a run.
fn base_files(folder: &Path) -> offramp_model::Result<Vec<String>> {
    let failed = |source| offramp_model::Error::Read { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let kinds = [".json", ".safetensors", ".jinja", ".txt", ".model"];
        let other = [OPTIMIZER, STATE, EXITS, "card.json"].contains(&name);
        if path.is_file() && !other && kinds.iter().any(|kind| name.ends_with(kind)) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Writes a model folder, and beside it the optimizer's moments, the exits' own heads and the averages.
/// Each rank has the moments of its share.
pub(super) fn write_all(
    folder: &Path,
    trainer: &Trainer,
    data: &Data,
    ranks: &mut Ranks,
) -> offramp_model::Result<Checksums> {
    let mut files = write_model(folder, &trainer.weights, trainer, data)?;
    let layout = trainer.layout();
    let mut moments = trainer.moment_places().into_iter();
    let mut own_heads = layout.own_heads();
    let mut averages = trainer
        .averages
        .iter()
        .flat_map(|average| model_tensors(layout).map(move |(_, range)| &average.values[range]));
    let alone = ranks.size() == 1;
    let written =
        write_tensors(&folder.join(OPTIMIZER), &beside_the_model(trainer), &mut |_| match moments.next() {
            Some((Moment::First, range)) if alone => Cow::Borrowed(&trainer.optimizer.m[range]),
            Some((Moment::Second, range)) if alone => Cow::Borrowed(&trainer.optimizer.v[range]),
            Some((moment, range)) => Cow::Owned(trainer.moments(moment, range, ranks)),
            None => Cow::Borrowed(match own_heads.next() {
                Some((_, range)) => &trainer.weights[range],
                None => averages.next().expect("as many places as tensors"),
            }),
        })?;
    files.insert(OPTIMIZER.to_owned(), written);
    Ok(files)
}

/// Reads weights, moments and the exits' own heads, and gives the other ranks what is theirs.
pub(super) fn read_values(
    folder: &Path,
    trainer: &mut Trainer,
    ranks: &mut Ranks,
) -> offramp_model::Result<()> {
    let layout = trainer.layout().clone();
    let files = Weights::open(folder, trainer.config())?;
    for (spec, range) in model_tensors(&layout) {
        files.read(spec, &mut trainer.weights[range])?;
    }
    let specs = beside_the_model(trainer);
    let beside = Weights::open_file(&folder.join(OPTIMIZER), &specs)?;
    let places = trainer.moment_places();
    let (moments, others) = specs.split_at(places.len());
    let mut others = others.iter();
    for ((_, range), spec) in layout.own_heads().zip(&mut others) {
        beside.read(spec, &mut trainer.weights[range])?;
    }
    for average in &mut trainer.averages {
        for ((_, range), spec) in model_tensors(&layout).zip(&mut others) {
            beside.read(spec, &mut average.values[range])?;
        }
    }
    ranks.broadcast(&mut trainer.weights);
    for (spec, (moment, range)) in moments.iter().zip(places) {
        match (moment, ranks.size() == 1) {
            (Moment::First, true) => beside.read(spec, &mut trainer.optimizer.m[range])?,
            (Moment::Second, true) => beside.read(spec, &mut trainer.optimizer.v[range])?,
            (_, false) => {
                let mut values = vec![0.0; range.len()];
                beside.read(spec, &mut values)?;
                trainer.set_moments(moment, range, &mut values, ranks);
            }
        }
    }
    Ok(())
}

/// Names and shapes of the tensors beside the model's: all first moments, all second ones, the exits' own
/// heads, the averages.
fn beside_the_model(trainer: &Trainer) -> Vec<TensorSpec> {
    let layout = trainer.layout();
    let named = |moment: &'static str| {
        layout.tensors().map(move |(spec, _)| TensorSpec::new(format!("{moment}.{}", spec.name), &spec.shape))
    };
    let own_heads = layout.own_heads().map(|(spec, _)| spec.clone());
    let of_average = |name: &'static str| {
        model_tensors(layout)
            .map(move |(spec, _)| TensorSpec::new(format!("{name}.{}", spec.name), &spec.shape))
    };
    let averages = trainer.averages.iter().flat_map(|average| of_average(average.name()));
    named("m").chain(named("v")).chain(own_heads).chain(averages).collect()
}

/// The tensors of the model itself, without the exits' own heads.
fn model_tensors(layout: &Layout) -> impl Iterator<Item = (&TensorSpec, Range<usize>)> {
    layout.tensors().take_while(|(_, range)| range.end <= layout.model_len())
}

/// Bytes that [`write_model`] will write at most.
pub(super) fn model_size(folder: &Path, trainer: &Trainer, data: &Data) -> Result<u64> {
    let weights = tensors_size(folder, &trainer.config().tensors())?;
    Ok(weights + data.tokenizer_json.len() as u64 + SLACK)
}

/// Bytes that [`write_all`] will write at most, `state.json` beside it.
pub(super) fn size(folder: &Path, trainer: &Trainer, data: &Data) -> Result<u64> {
    Ok(model_size(folder, trainer, data)? + tensors_size(folder, &beside_the_model(trainer))?)
}

/// Checks that the disk of `run` has room for the folder `target`, before anything of it is written.
pub(super) fn check_space(run: &Path, target: &Path, needed: u64) -> Result<()> {
    fits(target, needed, free_space(run))
}

/// Where the free space is unknown, nothing is checked.
fn fits(target: &Path, needed: u64, free: Option<u64>) -> Result<()> {
    match free {
        Some(free) if free < needed => Err(Error::DiskFull { path: target.to_owned(), needed, free }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_noticed_before_it_is_written_to() {
        let path = Path::new("run/step-000120");
        let message = fits(path, 12_738_000_001, Some(12_738_000_000)).unwrap_err().to_string();
        for part in
            ["no room for run/step-000120", "12739 MB", "12738 MB are free", "free some space", "--resume"]
        {
            assert!(message.contains(part) && !message.contains('\n'), "{message:?} does not say {part:?}");
        }
        assert!(fits(path, 7, Some(7)).is_ok() && fits(path, u64::MAX, None).is_ok());
        let here = tempfile::tempdir().unwrap();
        assert!(check_space(here.path(), path, 1).is_ok());
        #[cfg(unix)]
        assert!(matches!(check_space(here.path(), path, u64::MAX), Err(Error::DiskFull { .. })));
    }
}
