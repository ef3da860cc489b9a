//! containerd's filter grammar.
//!
//! ```text
//! filters  = selectors, OR-ed                     (one string each)
//! selectors = selector ("," selector)*            AND-ed
//! selector = fieldpath [operator value]           no operator: the field is present
//! fieldpath = field ("." field)*                  field = quoted | [A-Za-z0-9_]+
//! operator = "==" | "!=" | "~="                   ~= takes a regular expression
//! value    = quoted | [^\s,]+                     quoted = Go string; for ~= also |..| and /../
//! White space before any of these is passed over.
//! ```

use crate::error::{Error, Result};
use regex::Regex;

/// Most filters of one request.
const MAX_FILTERS: usize = 1024;
/// Longest filter, in bytes.
const MAX_LEN: usize = 64 << 10;
/// Memory a compiled regular expression may take.
const REGEX_SIZE: usize = 1 << 20;

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

#[derive(Debug)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

/// A parsed list of filters. An empty list matches everything.
#[derive(Debug)]
pub(crate) struct Filters(Vec<Vec<Selector>>);

/// What a record says of a field path: its value, or nothing when the field is absent.
pub(crate) trait Fields {
    fn field(&self, path: &[&str]) -> Option<String>;
}

impl<F: Fn(&[&str]) -> Option<String>> Fields for F {
    fn field(&self, path: &[&str]) -> Option<String> {
        self(path)
    }
}

impl Filters {
    pub(crate) fn parse<S: AsRef<str>>(filters: &[S]) -> Result<Filters> {
        if filters.len() > MAX_FILTERS || filters.iter().any(|filter| filter.as_ref().len() > MAX_LEN) {
            return Err(Error::invalid("filters: too many or too long"));
        }
        filters
            .iter()
            .map(|text| Parser { text: text.as_ref(), at: 0 }.selectors())
            .collect::<Result<_>>()
            .map(Filters)
    }

    pub(crate) fn matches(&self, record: &dyn Fields) -> bool {
        self.0.is_empty() || self.0.iter().any(|all| all.iter().all(|selector| selector.matches(record)))
    }
}

impl Selector {
    fn matches(&self, record: &dyn Fields) -> bool {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let value = record.field(&path);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value.as_ref() == Some(wanted),
            Test::NotEqual(other) => value.unwrap_or_default() != *other,
            Test::Matches(regex) => regex.is_match(&value.unwrap_or_default()),
        }
    }
}

/// The value of a text field: present when not empty.
pub(crate) fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

/// The value under a map such as `labels.a.b`, whose key is the rest of the path.
pub(crate) fn entry(map: &std::collections::HashMap<String, String>, rest: &[&str]) -> Option<String> {
    if rest.is_empty() { None } else { map.get(&rest.join(".")).cloned() }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn selectors(mut self) -> Result<Vec<Selector>> {
        let mut all = Vec::new();
        // The empty filter matches everything.
        if self.text.is_empty() {
            return Ok(all);
        }
        loop {
            all.push(self.selector()?);
            self.skip_space();
            match self.peek() {
                None => return Ok(all),
                Some(',') => self.at += 1,
                Some(_) => return self.fail("expected a separator"),
            }
        }
    }

    fn selector(&mut self) -> Result<Selector> {
        let path = self.path()?;
        self.skip_space();
        let rest = &self.text[self.at..];
        if rest.is_empty() || rest.starts_with(',') {
            return Ok(Selector { path, test: Test::Present });
        }
        let operator = rest.get(..2).unwrap_or(rest);
        if !["==", "!=", "~="].contains(&operator) {
            let letters: String = rest.chars().take_while(|letter| "=!~<>".contains(*letter)).collect();
            return match letters.is_empty() {
                true => self.fail("expected an operator ==|!=|~="),
                false => self.fail(&format!("unsupported operator {letters:?}")),
            };
        }
        self.at += 2;
        let value = self.value(operator == "~=")?;
        let test = match operator {
            "==" => Test::Equal(value),
            "!=" => Test::NotEqual(value),
            _ => {
                let built = regex::RegexBuilder::new(&value).size_limit(REGEX_SIZE).build();
                match built {
                    Ok(regex) => Test::Matches(regex),
                    Err(_) => return self.fail("invalid regular expression"),
                }
            }
        };
        Ok(Selector { path, test })
    }

    fn path(&mut self) -> Result<Vec<String>> {
        let mut path = vec![self.field()?];
        while self.peek() == Some('.') {
            self.at += 1;
            path.push(self.field()?);
        }
        Ok(path)
    }

    fn field(&mut self) -> Result<String> {
        self.skip_space();
        if self.peek() == Some('"') {
            return self.quoted('"');
        }
        let field = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        if field.is_empty() { self.fail("expected field or quoted") } else { Ok(field) }
    }

    fn value(&mut self, alternative_quotes: bool) -> Result<String> {
        self.skip_space();
        match self.peek() {
            Some('"') => self.quoted('"'),
            Some(quote @ ('|' | '/')) if alternative_quotes => self.quoted(quote),
            _ => {
                let value = self.take_while(|c| c != ',' && !c.is_whitespace());
                if value.is_empty() { self.fail("expected value or quoted") } else { Ok(value) }
            }
        }
    }

    /// A quoted text. In double quotes the escapes are Go's; in the others only the quote can be escaped.
    fn quoted(&mut self, quote: char) -> Result<String> {
        let mut value = String::new();
        let mut chars = self.text[self.at + 1..].char_indices();
        while let Some((offset, c)) = chars.next() {
            if c == quote {
                self.at += 1 + offset + quote.len_utf8();
                return Ok(value);
            }
            if c != '\\' {
                value.push(c);
                continue;
            }
            let escaped = chars.next().map(|(_, c)| c);
            let Some(escaped) = escaped else { break };
            if quote != '"' {
                if escaped != quote {
                    value.push('\\');
                }
                value.push(escaped);
                continue;
            }
            let mut number = |digits: usize, radix: u32, first: Option<char>| {
                let mut text: String = first.into_iter().collect();
                text.extend(chars.by_ref().take(digits).map(|(_, c)| c));
                u32::from_str_radix(&text, radix).ok().and_then(char::from_u32)
            };
            let character = match escaped {
                'a' => Some('\x07'),
                'b' => Some('\x08'),
                'f' => Some('\x0c'),
                'n' => Some('\n'),
                'r' => Some('\r'),
                't' => Some('\t'),
                'v' => Some('\x0b'),
                '\\' | '"' | '\'' => Some(escaped),
                'x' => number(2, 16, None),
                'u' => number(4, 16, None),
                'U' => number(8, 16, None),
                '0'..='7' => number(2, 8, Some(escaped)),
                _ => None,
            };
            match character {
                Some(character) => value.push(character),
                None => return self.fail("invalid escape sequence"),
            }
        }
        self.fail("quoted literal not terminated")
    }

    fn skip_space(&mut self) {
        self.take_while(char::is_whitespace);
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let rest = &self.text[self.at..];
        let taken = &rest[..rest.find(|c| !wanted(c)).unwrap_or(rest.len())];
        self.at += taken.len();
        taken.to_owned()
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn fail<T>(&self, what: &str) -> Result<T> {
        let (before, after) = self.text.split_at(self.at);
        Err(Error::invalid(format_args!("filters: parse error: [{before} >|{after}|< ]: {what}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn check(filters: &[&str]) -> bool {
        let labels = HashMap::from([
            ("a.b".to_owned(), "x,y".to_owned()),
            ("very complex label/with".to_owned(), "z\"q".to_owned()),
        ]);
        let record = |path: &[&str]| match path {
            ["id"] => text("web1"),
            ["image"] => text(""),
            ["labels", rest @ ..] => entry(&labels, rest),
            _ => None,
        };
        Filters::parse(filters).unwrap().matches(&record)
    }

    #[test]
    fn grammar() {
        for (filter, matches) in [
            ("", true),
            ("id", true),
            ("image", false),
            ("id==web1", true),
            ("id==web2", false),
            ("id!=web2", true),
            ("nothing!=x", true),
            ("nothing==", false),
            ("id~=^we", true),
            ("id~=/^w.b[0-9]$/", true),
            ("id~=|a\\|web|", true),
            ("id==\"web1\"", true),
            ("id==\"w\\x65b1\"", true),
            ("labels.a.b", true),
            ("labels.\"a.b\"==\"x,y\"", true),
            ("labels.\"very complex label/with\"==\"z\\\"q\"", true),
            ("id==web1,labels.a.b", true),
            ("id==web1,labels.c", false),
            ("id==web1, labels.a.b", true),
            (" id == web1 , labels.c", false),
        ] {
            if filter == "nothing==" {
                assert!(Filters::parse(&[filter]).is_err());
                continue;
            }
            assert_eq!(check(&[filter]), matches, "{filter}");
        }
        assert!(check(&[]));
        assert!(check(&["id==no", "id==web1"]));
    }

    #[test]
    fn refusals() {
        for bad in
            ["=", "id=", "id=x", "id==", "id==a b", ",", "id,", "id==\"x", "a..b", ".", "id~=(", "id==|x|y|,"]
        {
            let result = Filters::parse(&[bad]);
            // `|x|y|` is a plain value outside of a regular expression.
            if bad == "id==|x|y|," {
                assert!(result.is_err());
                continue;
            }
            let error = result.expect_err(bad);
            assert!(error.to_string().ends_with(": invalid argument"), "{error}");
        }
        assert!(Filters::parse(&["id".repeat(1 << 20)]).is_err());
    }
}
