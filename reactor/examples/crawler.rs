//! Follows the links of a site, several pages at a time, and lists what it finds.
//!
//! `cargo run --example crawler -- http://127.0.0.1:8000/`
//!
//! One depth after the other: the pages of one are fetched together, up to eight at a time, and their links are the next.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use reactor::http::client::Client;
use url::Url;

const FETCHES_AT_ONCE: usize = 8;
const PAGES_MAX: usize = 1000;
const PAGE_SIZE_BYTES_MAX: usize = 1024 * 1024;
const TIME_PER_PAGE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let start = std::env::args().nth(1).ok_or("usage: crawler URL")?;
    let start = Url::parse(&start)?;
    reactor::run(move || crawl(start));
    Ok(())
}

fn crawl(start: Url) {
    let client = Client::new();
    let mut known = BTreeSet::from([start.clone()]);
    let mut next = vec![start];
    while !next.is_empty() {
        let pages =
            reactor::for_each_parallel(FETCHES_AT_ONCE, next, |url| Ok::<_, Infallible>(visit(&client, url)));
        let Ok(pages) = pages;
        next = Vec::new();
        for link in pages.into_iter().flatten() {
            if known.len() < PAGES_MAX && known.insert(link.clone()) {
                next.push(link);
            }
        }
    }
    println!("{} pages", known.len());
}

/// Fetches a page and returns the links on it that stay on its site.
fn visit(client: &Client, url: Url) -> Vec<Url> {
    let page = reactor::timeout(TIME_PER_PAGE, || {
        let response = client.get(url.as_str()).send()?;
        println!("{} {url}", response.status().as_u16());
        Ok::<_, Box<dyn Error>>(response.text(PAGE_SIZE_BYTES_MAX)?)
    });
    match page {
        Ok(Ok(text)) => links(&text)
            .filter_map(|link| url.join(link).ok())
            .filter(|link| link.origin() == url.origin())
            .map(without_fragment)
            .collect(),
        Ok(Err(error)) => {
            println!("--- {url}: {error}");
            Vec::new()
        }
        Err(elapsed) => {
            println!("--- {url}: {elapsed}");
            Vec::new()
        }
    }
}

/// What stands in `href="..."`: good enough to show the flow, no HTML parser.
fn links(page: &str) -> impl Iterator<Item = &str> {
    page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next())
}

fn without_fragment(mut url: Url) -> Url {
    url.set_fragment(None);
    url
}
