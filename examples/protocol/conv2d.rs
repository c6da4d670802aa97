//! A convolution in Rust, judged by nnspec:
//!
//!     rustc --edition 2021 -O -o my_conv conv2d.rs
//!     nnspec check --process ./my_conv
//!
//! Sums are kept in f64.

mod nnspec;

use nnspec::{Array, Json, Request, Values};
use std::io;

type Pair = [i64; 2];

/// The arguments of a call, and the sizes that follow from them and the operands.
struct Conv {
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    x: [usize; 4],
    weight: [usize; 4],
    y: [usize; 4],
    outputs: usize, // of a group
}

/// A number for rows and columns, or a pair of them, each at least `least`.
fn pair(arguments: &Json, name: &str, otherwise: i64, least: i64) -> Result<Pair, String> {
    let found = match arguments.get(name) {
        None => Some([otherwise; 2]),
        Some(Json::List(values)) if values.len() == 2 => values[0].whole().zip(values[1].whole()).map(|(a, b)| [a, b]),
        Some(value) => value.whole().map(|both| [both; 2]),
    };
    found.filter(|values| values.iter().all(|v| *v >= least)).ok_or(format!("{name}: expected {least} or more, or two"))
}

impl Conv {
    fn new(request: &Request) -> Result<Conv, String> {
        let arguments = &request.arguments;
        let (stride, padding) = (pair(arguments, "stride", 1, 1)?, pair(arguments, "padding", 0, 0)?);
        let (dilation, [groups, _]) = (pair(arguments, "dilation", 1, 1)?, pair(arguments, "groups", 1, 1)?);
        let shape = |name: &str| request.arrays.get(name).map(|array| array.shape.clone()).unwrap_or_default();
        let x: [usize; 4] = shape("x").try_into().map_err(|_| "x: expected 4 dimensions")?;
        let weight: [usize; 4] = shape("weight").try_into().map_err(|_| "weight: expected 4 dimensions")?;
        let groups = groups as usize;
        if x[1] % groups != 0 || weight[0] % groups != 0 || weight[1] * groups != x[1] {
            return Err("groups: expected a divisor, and C / groups channels in weight".to_string());
        }
        if request.arrays.get("bias").is_some_and(|bias| bias.shape != [weight[0]]) {
            return Err("bias: expected O values".to_string());
        }
        let mut y = [x[0], weight[0], 0, 0];
        for axis in 0..2 {
            let window = dilation[axis] * (weight[axis + 2] as i64 - 1) + 1;
            let room = x[axis + 2] as i64 + 2 * padding[axis] - window;
            if weight[axis + 2] == 0 || room < 0 {
                return Err("weight: expected a window that fits into the padded image".to_string());
            }
            y[axis + 2] = (room / stride[axis]) as usize + 1;
        }
        Ok(Conv { stride, padding, dilation, x, weight, y, outputs: weight[0] / groups })
    }

    /// Where kernel element `k` of window `w` lies on an axis of the image, unless it lies in the padding.
    fn inside(&self, axis: usize, w: usize, k: usize) -> Option<usize> {
        let at = w as i64 * self.stride[axis] + k as i64 * self.dilation[axis] - self.padding[axis];
        (0..self.x[axis + 2] as i64).contains(&at).then_some(at as usize)
    }

    /// Call `add` with the places in y, in x (unless it is padding) and in the kernel of each product.
    fn products(&self, mut add: impl FnMut(usize, Option<usize>, usize)) {
        let [_, channels, height, width] = self.x;
        let [_, of_group, rows, columns] = self.weight;
        for n in 0..self.y[0] {
            for o in 0..self.y[1] {
                for r in 0..self.y[2] {
                    for s in 0..self.y[3] {
                        let of_y = ((n * self.y[1] + o) * self.y[2] + r) * self.y[3] + s;
                        for c in 0..of_group {
                            let plane = n * channels + o / self.outputs * of_group + c;
                            for i in 0..rows {
                                for j in 0..columns {
                                    let place = self.inside(0, r, i).zip(self.inside(1, s, j));
                                    let of_x = place.map(|(h, w)| (plane * height + h) * width + w);
                                    add(of_y, of_x, ((o * of_group + c) * rows + i) * columns + j);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn numbers(array: &Array) -> Vec<f64> {
    match &array.values {
        Values::Single(values) => values.iter().map(|v| *v as f64).collect(),
        Values::Double(values) => values.clone(),
    }
}

/// Sums in f64 as an array of a shape, with the dtype of another array.
fn rounded(sums: Vec<f64>, shape: &[usize], like: &Array) -> Array {
    let values = match like.values {
        Values::Single(_) => Values::Single(sums.iter().map(|v| *v as f32).collect()),
        Values::Double(_) => Values::Double(sums),
    };
    Array { shape: shape.to_vec(), values }
}

fn answer(request: &Request) -> Result<Vec<(&'static str, Array)>, String> {
    let call = Conv::new(request)?;
    let (x, weight) = (&request.arrays["x"], &request.arrays["weight"]);
    let (values, factors, plane) = (numbers(x), numbers(weight), (call.y[2] * call.y[3]).max(1));
    let bias = request.arrays.get("bias");
    let at = |place: Option<usize>| place.map_or(0.0, |place| values[place]);
    if request.kind != "gradients" {
        let mut y = vec![0.0; call.y.iter().product()];
        call.products(|of_y, of_x, k| y[of_y] += factors[k] * at(of_x));
        if let Some(bias) = bias.map(numbers) {
            y.iter_mut().enumerate().for_each(|(n, sum)| *sum += bias[n / plane % call.y[1]]);
        }
        return Ok(vec![("y", rounded(y, &call.y, x))]);
    }
    let cotangent = numbers(&request.arrays["cotangent"]);
    let (mut dx, mut dweight) = (vec![0.0; values.len()], vec![0.0; factors.len()]);
    call.products(|of_y, of_x, k| {
        if let Some(place) = of_x {
            dx[place] += cotangent[of_y] * factors[k];
        }
        dweight[k] += cotangent[of_y] * at(of_x);
    });
    let mut found = vec![("x", rounded(dx, &call.x, x)), ("weight", rounded(dweight, &call.weight, x))];
    if bias.is_some() {
        let mut dbias = vec![0.0; call.y[1]];
        cotangent.iter().enumerate().for_each(|(n, g)| dbias[n / plane % call.y[1]] += g);
        found.push(("bias", rounded(dbias, &call.y[1..2], x)));
    }
    Ok(found)
}

fn main() -> io::Result<()> {
    let (mut input, mut output) = (io::stdin().lock(), io::BufWriter::new(io::stdout().lock()));
    while let Some(request) = nnspec::read(&mut input)? {
        if request.kind == "capabilities" {
            let blocks = r#"{"name": "conv2d.rs", "version": "1", "blocks": {"conv2d": {}}}"#;
            nnspec::capabilities(&mut output, blocks)?;
            continue;
        }
        match answer(&request) {
            Ok(arrays) => nnspec::answer(&mut output, &arrays)?,
            Err(reason) => nnspec::refuse(&mut output, &reason)?,
        }
    }
    Ok(())
}
