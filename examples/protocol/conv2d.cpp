/* A convolution in C++, with threads and tiles, judged by nnspec:

       c++ -O2 -std=c++17 -pthread -o my_conv conv2d.cpp
       nnspec check --process './my_conv 4'

   The number is that of the threads. Sums are kept in the dtype of the operands. */
#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "nnspec.h"

using whole = long long;
using pair = std::array<whole, 2>;

constexpr whole TILE = 8; // channels, and columns, of the result that are computed at once

static int threads = 2;

/* Calls work(0) … work(count - 1), each in one of the threads. */
static void parallel(whole count, const std::function<void(whole)> &work) {
    std::atomic<whole> next{0};
    std::vector<std::thread> team;
    auto run = [&] {
        for (whole mine; (mine = next++) < count;) work(mine);
    };
    for (int n = 1; n < threads && n < count; n++) team.emplace_back(run);
    run();
    for (auto &thread : team) thread.join();
}

/* What a call may be refused for. */
struct refusal {
    std::string why;
};

static void require(bool holds, const char *why) {
    if (!holds) throw refusal{why};
}

/* The operands, the arguments, and the sizes that follow from them. */
struct conv {
    const nnspec_array *x, *weight, *bias;
    pair stride, padding, dilation;
    whole groups, n, c, h, w, o, cg, kh, kw, oh, ow, og;

    explicit conv(nnspec_request &request)
        : x(nnspec_find(&request, "x")), weight(nnspec_find(&request, "weight")), bias(nnspec_find(&request, "bias")),
          stride(read(request, "stride", 1, 1)), padding(read(request, "padding", 0, 0)),
          dilation(read(request, "dilation", 1, 1)), groups(read(request, "groups", 1, 1)[0]) {
        require(x && weight && x->rank == 4 && weight->rank == 4, "x and weight: expected 4 dimensions");
        n = x->shape[0], c = x->shape[1], h = x->shape[2], w = x->shape[3];
        o = weight->shape[0], cg = weight->shape[1], kh = weight->shape[2], kw = weight->shape[3], og = o / groups;
        require(c % groups == 0 && o % groups == 0, "groups: expected a divisor of the channels");
        require(cg * groups == c, "weight: expected C / groups channels");
        require(!bias || (bias->rank == 1 && bias->shape[0] == o), "bias: expected O values");
        require(kh > 0 && kw > 0, "weight: expected at least one row and one column");
        whole rows = h + 2 * padding[0] - dilation[0] * (kh - 1) - 1;
        whole columns = w + 2 * padding[1] - dilation[1] * (kw - 1) - 1;
        require(rows >= 0 && columns >= 0, "weight: the window is larger than the padded image");
        oh = rows / stride[0] + 1, ow = columns / stride[1] + 1;
    }

    static pair read(const nnspec_request &request, const char *name, whole otherwise, whole least) {
        pair value;
        bool known = nnspec_pair(&request, name, otherwise, value.data());
        require(known && *std::min_element(value.begin(), value.end()) >= least, name);
        return value;
    }

    /* Where kernel row i of result row r lies in the image; -1 in the padding. The same for columns. */
    whole row(whole r, whole i) const { return inside(r * stride[0] + i * dilation[0] - padding[0], h); }
    whole column(whole s, whole j) const { return inside(s * stride[1] + j * dilation[1] - padding[1], w); }
    static whole inside(whole at, whole size) { return at < 0 || at >= size ? -1 : at; }
};

/* Computes one tile of a row of the result: channels from o, columns from s, in the group of the channels. */
template <typename T> void tile(const conv &call, T *y, whole n, whole r, whole o, whole s, whole group) {
    const T *x = static_cast<const T *>(call.x->data), *weight = static_cast<const T *>(call.weight->data);
    whole channels = std::min(TILE, (group + 1) * call.og - o), columns = std::min(TILE, call.ow - s);
    T sums[TILE][TILE] = {}, values[TILE];
    for (whole c = 0; c < call.cg; c++)
        for (whole i = 0; i < call.kh; i++) {
            whole row = call.row(r, i);
            const T *from = row < 0 ? nullptr : x + ((n * call.c + group * call.cg + c) * call.h + row) * call.w;
            for (whole j = 0; j < call.kw; j++) {
                for (whole k = 0; k < columns; k++) {
                    whole column = call.column(s + k, j);
                    values[k] = from && column >= 0 ? from[column] : T(0);
                }
                for (whole p = 0; p < channels; p++) {
                    T factor = weight[(((o + p) * call.cg + c) * call.kh + i) * call.kw + j];
                    for (whole k = 0; k < columns; k++) sums[p][k] += factor * values[k];
                }
            }
        }
    for (whole p = 0; p < channels; p++)
        for (whole k = 0; k < columns; k++) {
            T offset = call.bias ? static_cast<const T *>(call.bias->data)[o + p] : T(0);
            y[((n * call.o + o + p) * call.oh + r) * call.ow + s + k] = sums[p][k] + offset;
        }
}

template <typename T> void forward(const conv &call) {
    whole shape[4] = {call.n, call.o, call.oh, call.ow};
    nnspec_array y = nnspec_make("y", call.x->dtype, 4, shape);
    parallel(call.n * call.groups * call.oh, [&](whole work) { // no two threads write to the same row
        whole r = work % call.oh, group = work / call.oh % call.groups, n = work / call.oh / call.groups;
        for (whole o = group * call.og; o < (group + 1) * call.og; o += TILE)
            for (whole s = 0; s < call.ow; s += TILE) tile(call, static_cast<T *>(y.data), n, r, o, s, group);
    });
    nnspec_answer(&y, 1);
    free(y.data);
}

/* Calls add(in x, in the kernel, cotangent) for each product of one image and channel of the result. */
template <typename T, typename Add> void products(const conv &call, const T *g, whole n, whole o, Add add) {
    for (whole r = 0; r < call.oh; r++)
        for (whole s = 0; s < call.ow; s++) {
            T cotangent = g[((n * call.o + o) * call.oh + r) * call.ow + s];
            for (whole c = 0; c < call.cg; c++)
                for (whole i = 0; i < call.kh; i++)
                    for (whole j = 0; j < call.kw; j++) {
                        whole row = call.row(r, i), column = call.column(s, j);
                        whole plane = n * call.c + o / call.og * call.cg + c;
                        whole at = row < 0 || column < 0 ? -1 : (plane * call.h + row) * call.w + column;
                        add(at, ((o * call.cg + c) * call.kh + i) * call.kw + j, cotangent);
                    }
        }
}

template <typename T> void gradients(const conv &call, const nnspec_array *cotangent) {
    const T *g = static_cast<const T *>(cotangent->data);
    const T *x = static_cast<const T *>(call.x->data), *weight = static_cast<const T *>(call.weight->data);
    std::vector<nnspec_array> found = {nnspec_make("x", call.x->dtype, 4, call.x->shape),
                                       nnspec_make("weight", call.x->dtype, 4, call.weight->shape)};
    if (call.bias) found.push_back(nnspec_make("bias", call.x->dtype, 1, call.bias->shape));
    T *dx = static_cast<T *>(found[0].data), *dweight = static_cast<T *>(found[1].data);
    parallel(call.n, [&](whole n) { // each thread has images of its own
        for (whole o = 0; o < call.o; o++)
            products<T>(call, g, n, o, [&](whole at, whole k, T c) { at < 0 ? T(0) : dx[at] += c * weight[k]; });
    });
    parallel(call.o, [&](whole o) { // and here channels
        for (whole n = 0; n < call.n; n++) {
            products<T>(call, g, n, o, [&](whole at, whole k, T c) { dweight[k] += c * (at < 0 ? T(0) : x[at]); });
            for (whole at = 0; call.bias && at < call.oh * call.ow; at++)
                static_cast<T *>(found[2].data)[o] += g[(n * call.o + o) * call.oh * call.ow + at];
        }
    });
    nnspec_answer(found.data(), static_cast<int>(found.size()));
    for (auto &array : found) free(array.data);
}

template <typename T> void answer(nnspec_request &request) {
    conv call(request);
    if (nnspec_is(&request, "gradients"))
        gradients<T>(call, nnspec_find(&request, "cotangent"));
    else
        forward<T>(call);
}

int main(int count, char **words) {
    if (count > 1) threads = std::max(1, atoi(words[1]));
    for (nnspec_request request; nnspec_read(&request); nnspec_free(&request)) {
        try {
            if (nnspec_is(&request, "capabilities"))
                nnspec_capabilities(R"({"name": "conv2d.cpp", "version": "1", "blocks": {"conv2d": {}}})");
            else if (std::string(request.arrays[0].dtype) == "float64")
                answer<double>(request);
            else
                answer<float>(request);
        } catch (const refusal &error) {
            nnspec_refuse(error.why.c_str());
        }
    }
}
