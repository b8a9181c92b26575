//! The same seed gives the same bits, whatever the number of threads.

use super::*;
use offramp_kernels::rayon::ThreadPoolBuilder;

/// Large enough that the products are shared between threads, and with sizes that no tile divides.
#[test]
fn the_number_of_threads_changes_no_bit() {
    let place = Place::new();
    let text = recipe("").text().replace("steps = 20\nbatch_size = 3", "steps = 4\nbatch_size = 9");
    let text = text.replace("sequence_length = 24", "sequence_length = 70");
    let text =
        text.replace("hidden_size = 16\nintermediate_size = 24", "hidden_size = 72\nintermediate_size = 200");
    for matrices in ["adamw", "muon"] {
        let recipe = moved_by(matrices, &text);
        for threads in [1, 2, 5] {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let [first, folder] = [1, threads].map(|threads| format!("{matrices}-{threads}"));
            pool.install(|| quietly(&place.job(&recipe, &folder, &GO))).unwrap();
            assert_eq!(
                journal_of(&place, &folder),
                journal_of(&place, &first),
                "{matrices}, {threads} threads"
            );
            for file in ["step-000004/model.safetensors", "step-000004/optimizer.safetensors"] {
                let [one, several] = [&first, &folder].map(|folder| place.read(&format!("{folder}/{file}")));
                assert!(one == several, "{file} with {matrices} and {threads} threads");
            }
        }
    }
}
