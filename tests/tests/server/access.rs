//! Who may ask: keys, hosts, and pages of other origins.

use offramp_serve::{Access, ServeOptions};
use offramp_tests::http::{Reply, get, send};
use offramp_tests::server::{Server, options};

fn ask(server: &Server, head: &[&str]) -> Reply {
    send(server.address, "GET /v1/models", head, b"")
}

#[test]
fn a_key_is_asked_for_where_one_was_given() {
    let access = Access { api_keys: vec!["first".to_owned(), "second".to_owned()], ..Access::default() };
    let server = Server::start(None, ServeOptions { access, ..options() });
    for key in ["first", "second"] {
        assert_eq!(ask(&server, &[&format!("authorization: Bearer {key}")]).status, 200);
    }
    for head in
        [&[][..], &["authorization: Bearer firs"], &["authorization: first"], &["authorization: Bearer "]]
    {
        let refused = ask(&server, head);
        assert_eq!(
            (refused.status, refused.json()["error"]["code"].as_str()),
            (401, Some("invalid_api_key"))
        );
    }
    for open in ["/health", "/health/live", "/health/ready", "/", "/page/app.js"] {
        assert_eq!(get(server.address, open).status, 200, "{open}");
    }
    assert_eq!(get(server.address, "/metrics").status, 401);
}

#[test]
fn a_page_elsewhere_cannot_ask_through_a_browser() {
    let access = Access { cors_origins: vec!["https://example.org".to_owned()], ..Access::default() };
    let server = Server::start(None, ServeOptions { access, ..options() });
    let own = format!("origin: http://{}", server.address);
    assert_eq!(ask(&server, &[&own]).status, 200, "the server's own page");
    for host in ["host: localhost:8080", "host: 127.0.0.1", "host: [::1]:1"] {
        assert_eq!(ask(&server, &[host]).status, 200, "{host}");
    }
    for (head, what) in [
        ("host: evil.example", "a name that was made to mean this machine"),
        ("host: localhost.evil.example", "the same"),
        ("origin: http://evil.example", "another page"),
        ("origin: null", "a page without origin"),
    ] {
        let refused = ask(&server, &[head]);
        assert_eq!(refused.status, 403, "{what}");
        assert_eq!(refused.header("access-control-allow-origin"), None);
        refused.error();
    }
    let strange = |text: &str| {
        let mut stream = offramp_tests::http::connect(server.address);
        std::io::Write::write_all(&mut stream, text.as_bytes()).unwrap();
        offramp_tests::http::finish(&mut stream).status
    };
    assert_eq!(strange("GET /v1/models HTTP/1.1\r\nconnection: close\r\n\r\n"), 400, "no host");
    assert_eq!(
        strange("GET / HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\nconnection: close\r\n\r\n"),
        400
    );
    let elsewhere = "GET http://evil.example/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    assert_eq!(strange(elsewhere), 403, "another authority");
    let named = ask(&server, &["origin: https://example.org"]);
    assert_eq!(
        (named.status, named.header("access-control-allow-origin")),
        (200, Some("https://example.org"))
    );
    let preflight = send(server.address, "OPTIONS /v1/completions", &["origin: https://example.org"], b"");
    assert_eq!(preflight.status, 204);
    assert!(
        preflight.header("access-control-allow-headers").is_some_and(|names| names.contains("authorization"))
    );
}

#[test]
fn the_page_is_whole_and_asks_nobody_else() {
    let server = Server::start(None, options());
    let page = get(server.address, "/");
    assert!(
        page.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'self'"))
    );
    let mut seen = vec![page.text()];
    let mut next = 0;
    while next < seen.len() {
        let text = seen[next].clone();
        next += 1;
        assert!(!text.contains("https://") && !text.contains("//cdn"), "another origin");
        for quoted in text.split(['"', '\'']).filter(|word| word.ends_with(".js") || word.ends_with(".css")) {
            let name = quoted.rsplit('/').next().unwrap();
            let file = get(server.address, &format!("/page/{name}"));
            assert_eq!(file.status, 200, "{name}");
            if !seen.contains(&file.text()) {
                seen.push(file.text());
            }
        }
    }
    assert!(seen.len() > 5, "{}", seen.len());
}
