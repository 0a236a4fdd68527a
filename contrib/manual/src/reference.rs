//! What the manual page takes from `docs/reference.md`, which a test holds against the program.

const PAGE: &str = include_str!("../../../docs/reference.md");

/// A part of a section.
pub enum Block {
    /// The first two cells of a row of a table.
    Row(String, String),
    Paragraph(String),
}

/// The section below a heading of the second level, without marks of Markdown.
///
/// # Panics
/// When the page has no such section.
pub fn section(heading: &str) -> Vec<Block> {
    let lines = PAGE.lines().skip_while(|line| *line != heading).skip(1);
    let lines: Vec<_> = lines.take_while(|line| !line.starts_with("## ")).collect();
    let blocks = lines
        .split(|line| line.is_empty() || line.starts_with('#'))
        .filter(|block| !block.is_empty())
        .flat_map(block);
    let blocks: Vec<_> = blocks.collect();
    assert!(!blocks.is_empty(), "docs/reference.md has no {heading:?}");
    blocks
}

fn block(lines: &[&str]) -> Vec<Block> {
    let plain = |text: &str| text.replace('`', "");
    if !lines[0].starts_with('|') {
        return vec![Block::Paragraph(plain(&lines.join(" ")))];
    }
    // A table's first two rows are its head and a rule.
    let rows = lines[2..].iter().map(|row| {
        let mut cells = row.trim_matches('|').split('|').map(|cell| plain(cell.trim()));
        let mut cell = || cells.next().unwrap_or_default();
        Block::Row(cell(), cell())
    });
    rows.collect()
}
