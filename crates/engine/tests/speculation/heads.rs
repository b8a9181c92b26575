//! Cheaper heads for drafts: another format, a shortlist, both; the text is the plain one.

use crate::{fixed, model, options, samplings, told};
use offramp_engine::{Adaptive, Error, Session, Speculation, Workspace, generate};
use offramp_model::{DraftHead, Format, Llama};
use std::sync::Arc;

fn heads(model: &Arc<Llama>) -> Vec<DraftHead> {
    let shortlist: Vec<u32> = (0..37).step_by(3).collect();
    let mut heads = Vec::new();
    for format in [None, Some(Format::F32), Some(Format::Bf16), Some(Format::Int8), Some(Format::Int4)] {
        for shortlist in [None, Some(&shortlist[..]), Some(&[7][..])] {
            heads.push(model.draft_head(format, shortlist).expect("a valid head"));
        }
    }
    heads
}

#[test]
fn any_head_drafts_the_plain_text() {
    for agreement in [0.0, 0.97] {
        let model = model(agreement);
        for sampling in samplings() {
            let options = options(sampling);
            let (plain, _) = told(&model, &options, &mut Speculation::off(), &[5, 9, 2]);
            for head in heads(&model) {
                for mut speculation in [fixed(2, 4), Speculation::auto(Adaptive::by_bytes())] {
                    speculation = speculation.with_head(Some(head.clone()));
                    assert_eq!(told(&model, &options, &mut speculation, &[5, 9, 2]).0, plain, "{head:?}");
                }
            }
        }
    }
}

#[test]
fn the_model_s_own_rows_draft_what_the_model_s_head_does() {
    let model = model(0.97);
    let all: Vec<u32> = (0..37).rev().collect();
    let drafted = |head| {
        let mut speculation = fixed(2, 4).with_head(head);
        told(&model, &options(samplings()[0]), &mut speculation, &[5, 9, 2]).1.statistics.accepted
    };
    let own = drafted(None);
    assert!(own > 0);
    assert_eq!(drafted(Some(model.draft_head(None, None).expect("a copy"))), own);
    assert_eq!(drafted(Some(model.draft_head(None, Some(&all)).expect("all rows"))), own);
    assert!(drafted(Some(model.draft_head(None, Some(&[7])).expect("one row"))) < own);
}

#[test]
fn a_head_of_nothing_or_of_unknown_tokens_is_refused() {
    let model = model(0.0);
    let refused =
        |shortlist: &[u32]| model.draft_head(None, Some(shortlist)).expect_err("a bad shortlist").to_string();
    assert!(refused(&[]).contains("empty"));
    assert!(refused(&[3, 37]).contains("37"));
}

/// One of another model may have another width or vocabulary: at best its drafts are noise.
#[test]
fn a_head_of_another_model_is_refused() {
    let (model, alike) = (model(0.97), model(0.97));
    let head = model.draft_head(Some(Format::Int8), None).expect("a valid head");
    for mut speculation in [Speculation::off(), fixed(2, 4), Speculation::auto(Adaptive::by_bytes())] {
        speculation = speculation.with_head(Some(head.clone()));
        let mut session = Session::new(&alike, 90).expect("within the context");
        let refused = generate(
            &mut session,
            &[5, 9, 2],
            &options(samplings()[0]),
            &mut speculation,
            &mut Workspace::new(),
            &mut |_| panic!("nothing is said"),
        );
        assert!(matches!(refused, Err(Error::ForeignDraftHead)));
        assert!(session.tokens().is_empty());
        told(&model.clone(), &options(samplings()[0]), &mut speculation, &[5, 9, 2]); // the same model
    }
}
