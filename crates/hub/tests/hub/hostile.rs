//! What a hub may not make us do, and what it refuses.

use crate::mock::{COMMIT, File, Model, Reply};
use crate::place::*;
use offramp_hub::{Hub, Id, Settings, Token};

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let place = Place::new(model());
    let settings = Settings { token: Token::new("hf_secret"), ..place.settings() };
    pull(&Hub::new(settings).unwrap(), &place.id, &quiet).unwrap();
    for request in place.hub.requests() {
        let sent = request.headers.get("authorization").map(String::as_str);
        assert_eq!(sent, (!request.elsewhere).then_some("Bearer hf_secret"), "{request:?}");
    }
}

#[test]
fn hostile_paths_and_names_write_nothing() {
    for path in ["../../../evil", "/evil", "a/../../evil", "..\\evil", "C:evil", "a\u{0}b", "", "a//b"] {
        let files = [(path.to_owned(), small("x"))].into();
        let place = Place::new(Model { commit: COMMIT.to_owned(), files, ..Model::default() });
        let line = line(pull(&place.client(), &place.id, &quiet));
        assert!(line.contains("cannot be a file of this model"), "{line}");
        assert_eq!(place.files(), [""; 0]);
    }
    let evil = || File { etag: "../../../../evil".to_owned(), ..small("x") };
    for (commit, file) in
        [("../../evil", small("x")), (COMMIT, evil()), (COMMIT, File { large: true, ..evil() })]
    {
        let place = Place::new(Model { commit: commit.to_owned(), ..Model::new([("config.json", file)]) });
        assert!(pull(&place.client(), &place.id, &quiet).is_err());
        assert!(place.files().iter().all(|name| !name.contains("evil")), "{:?}", place.files());
    }
}

#[test]
fn redirects_are_followed_as_far_as_is_safe() {
    for (location, said) in [
        ("file:///etc/passwd", "no address of the web"),
        ("/org/name/resolve/x/again", "too often"),
        ("http://[broken/", ""),
    ] {
        let place = Place::new(model());
        place.hub.twist(move |request, reply| match request.path.contains("/resolve/") {
            true => Reply::new(302, "").with("location", location),
            false => reply,
        });
        let line = line(pull(&place.client(), &place.id, &quiet));
        assert!(line.contains(said), "{line}");
    }
    // A model that was renamed: the hub redirects to itself.
    let place = Place::new(Model::default());
    place.hub.add("org/renamed", model());
    place.hub.twist(|request, reply| match request.path.contains("org/name/") {
        true => Reply::new(307, "").with("location", request.path.replace("org/name/", "org/renamed/")),
        false => reply,
    });
    pull(&place.client(), &place.id, &quiet).unwrap();
}

#[test]
fn what_is_refused_has_its_line() {
    let place = Place::new(Model { gated: true, ..model() });
    place.hub.add("org/name-2", model());
    let tell = |id: &str, token: Option<&str>| {
        let settings = Settings { token: token.and_then(Token::new), ..place.settings() };
        line(pull(&Hub::new(settings).unwrap(), &Id::parse(id).unwrap(), &quiet))
    };
    let page = format!("{}/org/name", place.hub.endpoint());
    let gated = tell("org/name", None);
    assert!(gated.contains(&format!("accept its terms at {page}")) && gated.contains("HF_TOKEN"), "{gated}");
    let known = tell("org/name", Some("hf_secret"));
    assert!(known.contains(&page) && known.contains("token's account"), "{known}");
    let misspelt = tell("org/name-3", None);
    assert!(misspelt.contains("did you mean org/name-2, org/name?"), "{misspelt}");
    let nothing = tell("other/x", None);
    assert!(nothing.contains("check its spelling") && nothing.contains("HF_TOKEN"), "{nothing}");
    let revision = tell("org/name@v9", None);
    assert!(revision.contains("no revision v9: it has main, v1"), "{revision}");
    place.hub.twist(|_, _| Reply::new(401, ""));
    let token = tell("org/name", Some("hf_secret"));
    assert!(token.contains("does not accept the token") && token.contains("/settings/tokens"), "{token}");
    place.hub.twist(|_, _| Reply::new(503, "").with("x-error-message", "overloaded"));
    let busy = tell("org/name", None);
    assert!(busy.contains("answers 503 (overloaded)"), "{busy}");
    assert_eq!(
        place.hub.requests().iter().filter(|request| request.path.contains("revision")).count() % 5,
        1
    );
    place.hub.twist(|_, _| Reply::new(429, "").with("retry-after", "7200"));
    assert!(tell("org/name", None).contains("answers 429"), "a wait of hours is not waited for");
    place.hub.twist(|_, _| Reply::new(200, "<html>log in to the network</html>"));
    assert!(tell("org/name", None).contains("does not answer as the hub does"));
    place.hub.twist(|_, _| Reply::new(200, r#"{"siblings": []}"#));
    assert!(tell("org/name", None).contains("names no commit"));
}
