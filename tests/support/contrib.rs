//! What the files of `contrib/` ask Prometheus.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A file below `contrib/`.
pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib").join(name)
}

pub fn read(name: &str) -> String {
    let path = file(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A query of the dashboard.
pub struct Query {
    pub panel: String,
    pub expression: String,
}

/// All queries of the dashboard's panels, with its variables in them.
pub fn dashboard_queries() -> Vec<Query> {
    let dashboard: Value = serde_json::from_str(&read("grafana/dashboard.json")).expect("JSON");
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title");
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().expect("an expression");
            queries.push(Query { panel: title.to_owned(), expression: expression.to_owned() });
        }
    }
    assert!(!queries.is_empty());
    queries
}
