/* A convolution in CUDA, judged by nnspec where there is a GPU:

       nvcc -std=c++17 -o my_conv conv2d.cu
       nnspec check --process ./my_conv

   A block of threads computes a tile of 8 × 32 elements of the result. The program has float32 alone, and no gradients. */
#include "nnspec.h"

constexpr int ROWS = 8, COLUMNS = 32; // of a tile
constexpr int LIMIT = 65535;          // blocks in the second and third dimension of a grid

typedef struct {
    long long stride[2], padding[2], dilation[2], groups, n, c, h, w, o, cg, kh, kw, oh, ow;
} conv;

__global__ void forward(conv call, const float *x, const float *weight, const float *bias, float *y) {
    long long column = blockIdx.x * (long long)COLUMNS + threadIdx.x;
    for (long long tile = blockIdx.y; tile * ROWS < call.oh; tile += gridDim.y)
        for (long long plane = blockIdx.z; plane < call.n * call.o; plane += gridDim.z) {
            long long row = tile * ROWS + threadIdx.y, n = plane / call.o, o = plane % call.o;
            if (row >= call.oh || column >= call.ow) continue;
            float sum = 0;
            for (long long c = 0; c < call.cg; c++)
                for (long long i = 0; i < call.kh; i++)
                    for (long long j = 0; j < call.kw; j++) {
                        long long h = row * call.stride[0] + i * call.dilation[0] - call.padding[0];
                        long long w = column * call.stride[1] + j * call.dilation[1] - call.padding[1];
                        bool inside = h >= 0 && h < call.h && w >= 0 && w < call.w;
                        long long channel = o / (call.o / call.groups) * call.cg + c;
                        float value = inside ? x[((n * call.c + channel) * call.h + h) * call.w + w] : 0;
                        sum += weight[((o * call.cg + c) * call.kh + i) * call.kw + j] * value;
                    }
            y[(plane * call.oh + row) * call.ow + column] = sum + (bias ? bias[o] : 0);
        }
}

/* Ends the program with a message where CUDA does not do what it was asked for. */
static void expect(cudaError_t error) {
    if (error == cudaSuccess) return;
    fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(error));
    exit(1);
}

static float *on_device(const nnspec_array *array) {
    float *there = NULL;
    if (!array) return NULL;
    expect(cudaMalloc(&there, (size_t)(array->size + 1) * sizeof *there));
    expect(cudaMemcpy(there, array->data, (size_t)array->size * sizeof *there, cudaMemcpyHostToDevice));
    return there;
}

/* Reads a call; returns why it is refused, NULL where it is legal. */
static const char *read_call(nnspec_request *request, conv *call) {
    const nnspec_array *x = nnspec_find(request, "x"), *weight = nnspec_find(request, "weight");
    const nnspec_array *bias = nnspec_find(request, "bias");
    long long groups[2];
    if (!nnspec_pair(request, "stride", 1, call->stride) || !nnspec_pair(request, "padding", 0, call->padding) ||
        !nnspec_pair(request, "dilation", 1, call->dilation) || !nnspec_pair(request, "groups", 1, groups))
        return "stride, padding, dilation: expected a number or two";
    for (int axis = 0; axis < 2; axis++)
        if (call->stride[axis] < 1 || call->padding[axis] < 0 || call->dilation[axis] < 1)
            return "expected stride and dilation of at least 1, and padding of at least 0";
    if (!x || !weight || x->rank != 4 || weight->rank != 4) return "x and weight: expected 4 dimensions";
    call->n = x->shape[0], call->c = x->shape[1], call->h = x->shape[2], call->w = x->shape[3];
    call->o = weight->shape[0], call->cg = weight->shape[1], call->kh = weight->shape[2], call->kw = weight->shape[3];
    call->groups = groups[0];
    if (call->groups < 1 || call->c % call->groups || call->o % call->groups) return "groups: expected a divisor";
    if (call->cg * call->groups != call->c) return "weight: expected C / groups channels";
    if (bias && (bias->rank != 1 || bias->shape[0] != call->o)) return "bias: expected O values";
    if (call->kh < 1 || call->kw < 1) return "weight: expected at least one row and one column";
    long long rows = call->h + 2 * call->padding[0] - call->dilation[0] * (call->kh - 1) - 1;
    long long columns = call->w + 2 * call->padding[1] - call->dilation[1] * (call->kw - 1) - 1;
    if (rows < 0 || columns < 0) return "weight: the window is larger than the padded image";
    call->oh = rows / call->stride[0] + 1, call->ow = columns / call->stride[1] + 1;
    return NULL;
}

static unsigned blocks(long long wanted) { return (unsigned)(wanted < LIMIT ? wanted : LIMIT); }

static void answer(nnspec_request *request) {
    conv call;
    const char *why = read_call(request, &call);
    if (why) {
        nnspec_refuse(why);
        return;
    }
    long long shape[4] = {call.n, call.o, call.oh, call.ow};
    nnspec_array y = nnspec_make("y", "float32", 4, shape);
    float *x = on_device(nnspec_find(request, "x")), *weight = on_device(nnspec_find(request, "weight"));
    float *bias = on_device(nnspec_find(request, "bias")), *there = on_device(&y);
    if (y.size) {
        dim3 grid((unsigned)((call.ow + COLUMNS - 1) / COLUMNS), blocks((call.oh + ROWS - 1) / ROWS),
                  blocks(call.n * call.o));
        forward<<<grid, dim3(COLUMNS, ROWS)>>>(call, x, weight, bias, there);
        expect(cudaGetLastError());
        expect(cudaMemcpy(y.data, there, (size_t)y.size * sizeof *there, cudaMemcpyDeviceToHost));
    }
    nnspec_answer(&y, 1);
    free(y.data);
    float *all[] = {x, weight, bias, there};
    for (float *one : all) expect(cudaFree(one));
}

int main(void) {
    nnspec_request request;
    while (nnspec_read(&request)) {
        if (nnspec_is(&request, "capabilities"))
            nnspec_capabilities("{\"name\": \"conv2d.cu\", \"version\": \"1\", \"blocks\": {\"conv2d\": "
                                "{\"gradients\": false, \"dtypes\": [\"float32\"]}}}");
        else
            answer(&request);
        nnspec_free(&request);
    }
    return 0;
}
