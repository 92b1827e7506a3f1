//! Rust text as the rules read it: comments are blank and strings hold only quotes, so that words in
//! either are not taken for code. It is no parser; rustc has already accepted what is read here.

/// One file's code.
pub(super) struct Source {
    code: String,
}

/// A function with a body.
pub(super) struct Function {
    /// Its name.
    pub(super) name: String,
    /// The line of its `fn`, counted from 1.
    pub(super) line: usize,
    /// Lines of code between its braces; blank lines and comments don't count, as in clippy.
    pub(super) length: usize,
}

impl Source {
    pub(super) fn new(text: &str) -> Source {
        Source {
            code: code_of(text),
        }
    }

    /// The code, line for line as in the file.
    pub(super) fn code(&self) -> &str {
        &self.code
    }

    /// The line of a position, counted from 1.
    pub(super) fn line_at(&self, position: usize) -> usize {
        let before = self.code.get(..position).unwrap_or_default();
        before.matches('\n').count() + 1
    }

    /// Where a word or path stands as a whole: not as part of a longer name.
    pub(super) fn positions<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let found = self.code.match_indices(word).map(|(position, _)| position);
        found.filter(move |position| {
            let before = self.code.get(..*position).unwrap_or_default();
            let after = self.code.get(position + word.len()..).unwrap_or_default();
            let open_end = word.ends_with(is_name) && after.starts_with(is_name);
            !before.ends_with(is_name) && !open_end
        })
    }

    /// The names that follow a path prefix such as `crate::`, each with its line; all names of a
    /// braced group, and `*`.
    pub(super) fn names_after(&self, prefix: &str) -> Vec<(usize, String)> {
        let mut names = Vec::new();
        for position in self.positions(prefix) {
            let line = self.line_at(position);
            let rest = self.code.get(position + prefix.len()..).unwrap_or_default();
            names.extend(first_names(rest).into_iter().map(|name| (line, name)));
        }
        names
    }

    /// The names that follow a chain of `super::` that leaves the file for the crate's root, where
    /// the file itself stands `depth` modules below that root.
    pub(super) fn names_in_root_by_super(&self, depth: usize) -> Vec<(usize, String)> {
        let mut names = Vec::new();
        for position in self.positions("super::") {
            let before = self.code.get(..position).unwrap_or_default();
            if before.ends_with("super::") {
                continue;
            }
            let mut rest = self.code.get(position..).unwrap_or_default();
            let mut steps = 0;
            while let Some(next) = rest.strip_prefix("super::") {
                (rest, steps) = (next, steps + 1);
            }
            if steps == depth + open_modules(before) {
                let line = self.line_at(position);
                names.extend(first_names(rest).into_iter().map(|name| (line, name)));
            }
        }
        names
    }

    /// The modules that the file declares as files of their own, each with its line; not those of
    /// tests.
    pub(super) fn modules(&self) -> Vec<(usize, String)> {
        let tests = self.test_lines();
        let lines = self.code.lines().enumerate();
        let declared = lines.filter_map(|(index, line)| {
            let words = line.trim().strip_suffix(';')?;
            let (_, name) = words
                .split_once("mod ")
                .filter(|(visibility, _)| visibility.is_empty() || visibility.starts_with("pub"))?;
            Some((index + 1, name.to_owned()))
        });
        declared
            .filter(|(line, _)| {
                !tests
                    .iter()
                    .any(|(first, last)| (*first..=*last).contains(line))
            })
            .collect()
    }

    /// The functions outside of test modules.
    pub(super) fn functions(&self) -> Vec<Function> {
        let tests = self.test_lines();
        let mut functions = Vec::new();
        for position in self.positions("fn ") {
            let line = self.line_at(position);
            if tests
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&line))
            {
                continue;
            }
            let rest = self.code.get(position + "fn ".len()..).unwrap_or_default();
            let name: String = rest.chars().take_while(|c| is_name(*c)).collect();
            if let Some(body) = body(rest).filter(|_| !name.is_empty()) {
                let length = body.lines().filter(|line| !line.trim().is_empty()).count();
                functions.push(Function { name, line, length });
            }
        }
        functions
    }

    /// First and last line of each item under `#[cfg(test)]`.
    fn test_lines(&self) -> Vec<(usize, usize)> {
        let mut ranges = Vec::new();
        for (position, mark) in self.code.match_indices("#[cfg(test)]") {
            let start = position + mark.len();
            let rest = self.code.get(start..).unwrap_or_default();
            let length = match body(rest) {
                Some(body) => body.as_ptr() as usize - rest.as_ptr() as usize + body.len(),
                None => rest.find(';').unwrap_or(rest.len()),
            };
            ranges.push((self.line_at(position), self.line_at(start + length)));
        }
        ranges
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// How many inline modules are open at the end of a piece of code.
fn open_modules(code: &str) -> usize {
    let mut open = Vec::new();
    for (position, c) in code.char_indices() {
        match c {
            '{' => {
                let before = code.get(..position).unwrap_or_default();
                let mut words = before.trim_end().rsplit(|c: char| c.is_whitespace());
                let is_module = words.next().is_some() && words.next() == Some("mod");
                open.push(is_module);
            }
            '}' => {
                open.pop();
            }
            _ => {}
        }
    }
    open.into_iter().filter(|is_module| *is_module).count()
}

/// The first name of a path, or of each path of a braced group.
fn first_names(rest: &str) -> Vec<String> {
    let first = |path: &str| -> Option<String> {
        let path = path.trim_start();
        let name: String = path.chars().take_while(|c| is_name(*c)).collect();
        match name.is_empty() {
            true => path.starts_with('*').then(|| "*".to_owned()),
            false => Some(name),
        }
    };
    let Some(group) = rest.trim_start().strip_prefix('{') else {
        return first(rest).into_iter().collect();
    };
    let mut depth = 0_usize;
    let mut paths = vec![String::new()];
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            '{' => depth += 1,
            ',' if depth == 0 => paths.push(String::new()),
            _ => {
                if let Some(path) = paths.last_mut() {
                    path.push(c);
                }
            }
        }
    }
    paths.iter().filter_map(|path| first(path)).collect()
}

/// What stands between the braces of the item that `rest` begins with; none when it ends with `;`.
fn body(rest: &str) -> Option<&str> {
    let (mut brackets, mut braces) = (0_i32, 0_i32);
    let mut start = None;
    for (position, c) in rest.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            ';' if brackets == 0 && start.is_none() => return None,
            '{' => {
                braces += 1;
                start = start.or(Some(position + 1));
            }
            '}' => {
                braces -= 1;
                if braces == 0 {
                    return rest.get(start?..position);
                }
            }
            _ => {}
        }
    }
    None
}

fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (length, fill) = token(rest, code.chars().next_back());
        let (taken, left) = rest.split_at_checked(length).unwrap_or((rest, ""));
        match fill {
            Some(fill) => code.extend(taken.chars().map(|c| if c == '\n' { c } else { fill })),
            None => code.push_str(taken),
        }
        rest = left;
    }
    code
}

/// How long the next token is, and what stands for it: comments and strings are filled.
fn token(rest: &str, previous: Option<char>) -> (usize, Option<char>) {
    let one = rest.chars().next().map_or(1, char::len_utf8);
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), Some(' '));
    }
    if rest.starts_with("/*") {
        return (comment_length(rest), Some(' '));
    }
    if rest.starts_with('"') {
        return (quoted_length(rest, '"'), Some('"'));
    }
    if let Some(length) = raw_length(rest).filter(|_| !previous.is_some_and(is_name)) {
        return (length, Some('"'));
    }
    let mut chars = rest.chars();
    match (chars.next(), chars.next(), chars.next()) {
        (Some('\''), Some('\\'), _) => (quoted_length(rest, '\''), Some('"')),
        (Some('\''), Some(c), Some('\'')) => (c.len_utf8() + 2, Some('"')),
        _ => (one, None),
    }
}

fn comment_length(rest: &str) -> usize {
    let mut depth = 0_usize;
    for (position, _) in rest.char_indices() {
        let here = rest.get(position..).unwrap_or_default();
        if here.starts_with("/*") {
            depth += 1;
        } else if here.starts_with("*/") {
            depth -= 1;
            if depth == 0 {
                return position + "*/".len();
            }
        }
    }
    rest.len()
}

fn quoted_length(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (position, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return position + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a raw string, if one begins here.
fn raw_length(rest: &str) -> Option<usize> {
    let after = rest.trim_start_matches(['b', 'c']).strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let inner = after.trim_start_matches('#').strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let prefix = rest.len() - inner.len();
    Some(prefix + inner.find(&end).map_or(inner.len(), |at| at + end.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_blank_and_strings_are_quotes() {
        let text = "a /* b /* c */ d */ e // f\n\"g\\\"h\" 'i' '\\'' &'j k r#\"l\"m\"# bar\"n\"";
        let code = code_of(text);
        assert_eq!(code.lines().count(), 2);
        let letters: String = code.chars().filter(|c| c.is_alphabetic()).collect();
        assert_eq!(letters, "aejkbar");
        assert_eq!(code.chars().count(), text.chars().count());
    }

    #[test]
    fn names_come_from_paths_and_groups() {
        let source = Source::new("use crate::{\n  a::{b, c},\n  d,\n};\nlet x = crate::e::f();");
        let names = source.names_after("crate::");
        assert_eq!(
            names,
            [
                (1, "a".to_owned()),
                (1, "d".to_owned()),
                (5, "e".to_owned())
            ]
        );
    }

    #[test]
    fn super_is_followed_to_the_root_only() {
        let source =
            Source::new("use super::a;\nmod tests {\n use super::*;\n use super::super::b;\n}");
        let names = source.names_in_root_by_super(1);
        assert_eq!(names, [(1, "a".to_owned()), (4, "b".to_owned())]);
        assert_eq!(Source::new("use super::a;").names_in_root_by_super(2), []);
    }

    #[test]
    fn functions_are_measured_without_blanks_comments_and_tests() {
        let text = "fn a(x: [u8; 2]) -> u8 {\n  // no\n\n  1\n}\nfn b();\n#[cfg(test)]\nmod t {\n fn c() {\n 1\n }\n}\nfn d() {}";
        let source = Source::new(text);
        let found: Vec<_> = source
            .functions()
            .into_iter()
            .map(|f| (f.name, f.line, f.length))
            .collect();
        assert_eq!(found, [("a".to_owned(), 1, 1), ("d".to_owned(), 13, 0)]);
    }

    #[test]
    fn modules_are_those_that_are_files_and_no_tests() {
        let source = Source::new("mod a;\npub mod b;\n#[cfg(test)]\nmod c;\nmod d {\n}\nuse x;\n");
        let names: Vec<_> = source.modules().into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
