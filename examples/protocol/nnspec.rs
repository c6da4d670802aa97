//! What a program in Rust needs to answer nnspec's requests; it needs the standard library alone.
//!
//! The format is described in spec/protocol.md: a line of JSON, then raw little-endian arrays.

#![allow(dead_code)] // a program need not use all of it

use std::collections::HashMap;
use std::io::{self, BufRead, Write};

/// JSON, as far as headers have it.
#[derive(Clone, Debug)]
pub enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(HashMap<String, Json>),
}

impl Json {
    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(entries) => entries.get(key),
            _ => None,
        }
    }

    pub fn text(&self) -> &str {
        match self {
            Json::Text(text) => text,
            _ => "",
        }
    }

    pub fn list(&self) -> &[Json] {
        match self {
            Json::List(values) => values,
            _ => &[],
        }
    }

    /// A whole number.
    pub fn whole(&self) -> Option<i64> {
        match self {
            Json::Number(value) if value.fract() == 0.0 => Some(*value as i64),
            _ => None,
        }
    }
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn peek(&mut self) -> u8 {
        while self.at < self.bytes.len() && self.bytes[self.at].is_ascii_whitespace() {
            self.at += 1;
        }
        *self.bytes.get(self.at).unwrap_or(&0)
    }

    fn value(&mut self) -> Json {
        match self.peek() {
            b'{' => {
                let mut entries = HashMap::new();
                self.at += 1;
                while self.peek() == b'"' {
                    let key = self.text();
                    self.peek();
                    self.at += 1; // the colon
                    entries.insert(key, self.value());
                    self.comma();
                }
                self.at += 1;
                Json::Object(entries)
            }
            b'[' => {
                let mut values = Vec::new();
                self.at += 1;
                while !matches!(self.peek(), b']' | 0) {
                    values.push(self.value());
                    self.comma();
                }
                self.at += 1;
                Json::List(values)
            }
            b'"' => Json::Text(self.text()),
            _ => {
                let begin = self.at;
                while self.at < self.bytes.len() && !b",]} \n".contains(&self.bytes[self.at]) {
                    self.at += 1;
                }
                match std::str::from_utf8(&self.bytes[begin..self.at]).unwrap_or("") {
                    "true" => Json::Bool(true),
                    "false" => Json::Bool(false),
                    number => number.parse().map_or(Json::Null, Json::Number),
                }
            }
        }
    }

    fn comma(&mut self) {
        if self.peek() == b',' {
            self.at += 1;
        }
    }

    /// A string; the names that headers have need no escapes.
    fn text(&mut self) -> String {
        let begin = self.at + 1;
        self.at = begin;
        while self.at < self.bytes.len() && self.bytes[self.at] != b'"' {
            self.at += 1 + (self.bytes[self.at] == b'\\') as usize;
        }
        let found = String::from_utf8_lossy(&self.bytes[begin..self.at.min(self.bytes.len())]).into_owned();
        self.at += 1;
        found
    }
}

/// The numbers of an array, by its dtype. A program that claims other dtypes adds them here.
#[derive(Clone, Debug)]
pub enum Values {
    Single(Vec<f32>),
    Double(Vec<f64>),
}

#[derive(Clone, Debug)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Values,
}

pub struct Request {
    pub kind: String,
    pub arguments: Json,
    pub arrays: HashMap<String, Array>,
}

/// Read a request; None at the end of standard input.
pub fn read(input: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = Vec::new();
    if input.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let header = Parser { bytes: &line, at: 0 }.value();
    let mut arrays = HashMap::new();
    for one in header.get("arrays").map_or(&[][..], Json::list) {
        let shape: Vec<usize> = one.get("shape").map_or(&[][..], Json::list).iter().map(size).collect();
        let count: usize = shape.iter().product();
        let double = one.get("dtype").map_or("", Json::text) == "float64";
        let mut data = vec![0; count * if double { 8 } else { 4 }];
        input.read_exact(&mut data)?;
        let values = if double {
            Values::Double(data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect())
        } else {
            Values::Single(data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
        };
        arrays.insert(one.get("name").map_or("", Json::text).to_string(), Array { shape, values });
    }
    let kind = header.get("request").map_or("", Json::text).to_string();
    let arguments = header.get("arguments").cloned().unwrap_or(Json::Null);
    Ok(Some(Request { kind, arguments, arrays }))
}

fn size(value: &Json) -> usize {
    value.whole().unwrap_or(0) as usize
}

/// Write an answer of arrays.
pub fn answer(output: &mut impl Write, arrays: &[(&str, Array)]) -> io::Result<()> {
    let about: Vec<String> = arrays
        .iter()
        .map(|(name, array)| {
            let dtype = if matches!(array.values, Values::Double(_)) { "float64" } else { "float32" };
            format!("{{\"name\": \"{name}\", \"dtype\": \"{dtype}\", \"shape\": {:?}}}", array.shape)
        })
        .collect();
    writeln!(output, "{{\"nnspec\": 1, \"arrays\": [{}]}}", about.join(", "))?;
    for (_, array) in arrays {
        match &array.values {
            Values::Single(values) => values.iter().try_for_each(|v| output.write_all(&v.to_le_bytes()))?,
            Values::Double(values) => values.iter().try_for_each(|v| output.write_all(&v.to_le_bytes()))?,
        }
    }
    output.flush()
}

/// Refuse a call. The reason has no quotation marks.
pub fn refuse(output: &mut impl Write, reason: &str) -> io::Result<()> {
    writeln!(output, "{{\"nnspec\": 1, \"refused\": \"{reason}\"}}")?;
    output.flush()
}

/// Answer what the program has: the object that the page describes.
pub fn capabilities(output: &mut impl Write, json: &str) -> io::Result<()> {
    writeln!(output, "{{\"nnspec\": 1, \"capabilities\": {json}}}")?;
    output.flush()
}
