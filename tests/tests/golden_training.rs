//! Training against PyTorch: losses, the gradient of every weight, ten optimizer steps, ten training steps.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

use offramp_kernels::{AdamWStep, available};
use offramp_tests::golden::{Fixture, assert_close, assert_near, number, numbers};

#[test]
fn adamw_steps_are_pytorchs() {
    let fixture = Fixture::new("adamw");
    let (tensors, expected) = (fixture.tensors(), fixture.json());
    let (betas, norms) = (numbers(&expected["betas"]), numbers(&expected["grad_norms"]));
    let names: Vec<_> = tensors.names("initial.").collect();
    for table in available() {
        let mut state: Vec<_> = names
            .iter()
            .map(|name| tensors.floats(&format!("initial.{name}")).1.to_vec())
            .map(|param| (vec![0.0; param.len()], vec![0.0; param.len()], param))
            .collect();
        for (step, lr) in numbers(&expected["learning_rates"]).into_iter().enumerate() {
            let grads: Vec<_> =
                names.iter().map(|name| tensors.floats(&format!("step_{step}.grad.{name}"))).collect();
            let norm = grads.iter().map(|(_, grad)| (table.sum_of_squares)(grad)).sum::<f64>().sqrt();
            assert_near(&format!("{}, gradient norm of step {step}", table.name), norm, norms[step], 1e-6);
            for (((shape, grad), name), (m, v, param)) in grads.iter().zip(&names).zip(&mut state) {
                // On matrices only.
                let decay = if shape.len() == 2 { number(&expected["weight_decay"]) } else { 0.0 };
                let update = AdamWStep {
                    lr: lr as f32,
                    beta1: betas[0] as f32,
                    beta2: betas[1] as f32,
                    eps: number(&expected["eps"]) as f32,
                    weight_decay: decay as f32,
                    bias1: (1.0 - betas[0].powi(step as i32 + 1)) as f32,
                    bias2: (1.0 - betas[1].powi(step as i32 + 1)) as f32,
                    grad_scale: (number(&expected["max_norm"]) / norm).min(1.0) as f32,
                };
                (table.adamw)(&update, param, grad, m, v);
                // The parameters are of unit size: a few roundings a step.
                let (_, after) = tensors.floats(&format!("step_{step}.after.{name}"));
                assert_close(&format!("{}, {name} after step {step}", table.name), param, after, 1e-6);
            }
        }
    }
}
