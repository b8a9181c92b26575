use super::*;

fn state() -> RunState {
    RunState {
        step: 232,
        steps: 400,
        remaining: Duration::from_secs(28),
        tokens_per_second: 5496.4,
        loss: 2.5331,
        smoothed_loss: 2.6589,
        grad_norm: 0.921,
        usual_norm: 1.219,
        learning_rate: 2.52e-3,
        skipped: 0,
        loss_spikes: 1,
        memory: Some(Memory { resident: 123_000_000, peak: 150_000_000 }),
    }
}

fn latest() -> Latest {
    let losses = [(6, 3.037), (12, 2.923), (18, 2.864), (24, 2.818)];
    let exits = losses.map(|(exit_layer, loss)| ExitLoss { exit_layer, loss }).to_vec();
    let validation = Some(ValidationRecord { step: 200, exits, bits_per_byte: 1.9931 });
    Latest { validation, saved: Some(200) }
}

#[test]
fn eighty_columns_hold_everything() {
    assert_eq!(
        lines(&state(), &latest(), 80),
        [
            "━━━━━━━━━───────  58%  28s left · step 232/400 · 5,496 tokens/s",
            "loss 2.533, smoothed 2.659 · gradient 0.92 · median 1.22 · rate 2.5e-3",
            "validated 200: exit 6 3.037/20.8, 12 2.923/18.6, 18 2.864/17.5, 24 2.818/16.7",
            "memory 123 MB, peak 150 MB · 0 skipped · 1 loss spike · saved step 200",
        ]
    );
}

#[test]
fn a_narrow_terminal_leaves_facts_out_whole() {
    assert_eq!(
        lines(&state(), &latest(), 40),
        [
            "━━━━────  58%  28s left · step 232/400",
            "loss 2.533, smoothed 2.659",
            "validated 200: exit 24 2.818/16.7",
            "memory 123 MB, peak 150 MB · 0 skipped",
        ]
    );
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let wild = RunState {
        step: 1_234_567,
        steps: 123_456_789,
        remaining: Duration::from_secs(9_876_543),
        loss: f64::NAN,
        grad_norm: 1e30,
        skipped: u64::MAX,
        ..state()
    };
    for state in [state(), wild] {
        for width in 0..200 {
            for line in lines(&state, &latest(), width) {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
    }
}

#[test]
fn a_line_stays_away_until_there_is_something_to_say() {
    assert_eq!(lines(&state(), &Latest::default(), 80).len(), 3);
    let nowhere = RunState { memory: None, ..state() };
    assert_eq!(lines(&nowhere, &Latest::default(), 80)[2], "0 skipped · 1 loss spike");
}

#[test]
fn a_file_gets_the_same_facts_in_a_line() {
    assert_eq!(
        plain(&state()),
        "step 232/400 (58%) · loss 2.533, smoothed 2.659 · gradient 0.92 · median 1.22 · rate 2.5e-3 · \
         5,496 tokens/s · 28s left · memory 123 MB, peak 150 MB · 0 skipped · 1 loss spike"
    );
    assert_eq!(
        validation(&latest().validation.unwrap()),
        "validation at step 200: exit 6 3.037/20.8, 12 2.923/18.6, 18 2.864/17.5, 24 2.818/16.7 \
         (nats/perplexity); 1.993 bits/byte"
    );
}
