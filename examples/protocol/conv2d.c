/* A convolution in C, in tiles of columns, judged by nnspec:

       cc -O2 -o my_conv conv2d.c
       nnspec check --process ./my_conv

   Sums are kept in double. */
#include "nnspec.h"

#ifndef TILE
#define TILE 8 /* columns of the result that are computed at once */
#endif
#define TEXT(number) TEXT_OF(number)
#define TEXT_OF(number) #number

typedef long long whole;

static double get(const nnspec_array *array, whole at) {
    return strcmp(array->dtype, "float32") ? ((double *)array->data)[at] : ((float *)array->data)[at];
}

static void set(nnspec_array *array, whole at, double value) {
    if (strcmp(array->dtype, "float32"))
        ((double *)array->data)[at] = value;
    else
        ((float *)array->data)[at] = (float)value;
}

/* A call: operands, arguments, and the sizes that follow from them. */
typedef struct {
    const nnspec_array *x, *weight, *bias;
    whole stride[2], padding[2], dilation[2], groups;
    whole n, c, h, w, o, cg, kh, kw, oh, ow;
} conv;

/* Reads a call; returns why it is refused, NULL where it is legal. */
static const char *read_call(nnspec_request *request, conv *call) {
    whole groups[2];
    call->x = nnspec_find(request, "x"), call->weight = nnspec_find(request, "weight");
    call->bias = nnspec_find(request, "bias");
    if (!nnspec_pair(request, "stride", 1, call->stride) || !nnspec_pair(request, "padding", 0, call->padding) ||
        !nnspec_pair(request, "dilation", 1, call->dilation) || !nnspec_pair(request, "groups", 1, groups))
        return "stride, padding, dilation: expected a number or two";
    for (int axis = 0; axis < 2; axis++) {
        if (call->stride[axis] < 1) return "stride: expected at least 1";
        if (call->padding[axis] < 0) return "padding: expected at least 0";
        if (call->dilation[axis] < 1) return "dilation: expected at least 1";
    }
    const nnspec_array *x = call->x, *weight = call->weight;
    if (!x || !weight || x->rank != 4 || weight->rank != 4) return "x and weight: expected 4 dimensions";
    call->n = x->shape[0], call->c = x->shape[1], call->h = x->shape[2], call->w = x->shape[3];
    call->o = weight->shape[0], call->cg = weight->shape[1], call->kh = weight->shape[2], call->kw = weight->shape[3];
    call->groups = groups[0];
    if (call->groups < 1 || call->c % call->groups || call->o % call->groups) return "groups: expected a divisor";
    if (call->cg * call->groups != call->c) return "weight: expected C / groups channels";
    if (call->bias && (call->bias->rank != 1 || call->bias->shape[0] != call->o)) return "bias: expected O values";
    if (call->kh < 1 || call->kw < 1) return "weight: expected at least one row and one column";
    whole rows = call->h + 2 * call->padding[0] - call->dilation[0] * (call->kh - 1) - 1;
    whole columns = call->w + 2 * call->padding[1] - call->dilation[1] * (call->kw - 1) - 1;
    if (rows < 0 || columns < 0) return "weight: the window is larger than the padded image";
    call->oh = rows / call->stride[0] + 1, call->ow = columns / call->stride[1] + 1;
    return NULL;
}

/* Where an element of a window lies in x; -1 in the padding. */
static whole place(const conv *call, whole n, whole c, whole row, whole i, whole column, whole j) {
    whole h = row * call->stride[0] + i * call->dilation[0] - call->padding[0];
    whole w = column * call->stride[1] + j * call->dilation[1] - call->padding[1];
    if (h < 0 || h >= call->h || w < 0 || w >= call->w) return -1;
    return ((n * call->c + c) * call->h + h) * call->w + w;
}

static void forward(const conv *call) {
    whole shape[4] = {call->n, call->o, call->oh, call->ow}, outputs = call->o / call->groups;
    nnspec_array y = nnspec_make("y", call->x->dtype, 4, shape);
    for (whole n = 0; n < call->n; n++)
        for (whole o = 0; o < call->o; o++)
            for (whole row = 0; row < call->oh; row++)
                for (whole begin = 0; begin < call->ow; begin += TILE) {
                    whole end = begin + TILE < call->ow ? begin + TILE : call->ow;
                    double sums[TILE] = {0};
                    for (whole c = 0; c < call->cg; c++)
                        for (whole i = 0; i < call->kh; i++)
                            for (whole j = 0; j < call->kw; j++) {
                                double factor = get(call->weight, ((o * call->cg + c) * call->kh + i) * call->kw + j);
                                for (whole column = begin; column < end; column++) {
                                    whole at = place(call, n, o / outputs * call->cg + c, row, i, column, j);
                                    sums[column - begin] += factor * (at < 0 ? 0 : get(call->x, at));
                                }
                            }
                    for (whole column = begin; column < end; column++)
                        set(&y, ((n * call->o + o) * call->oh + row) * call->ow + column,
                            sums[column - begin] + (call->bias ? get(call->bias, o) : 0));
                }
    nnspec_answer(&y, 1);
    free(y.data);
}

/* A sum in double for each element of an array, which is rounded once. */
static nnspec_array rounded(const char *name, const nnspec_array *like, double *sums) {
    nnspec_array array = nnspec_make(name, like->dtype, like->rank, like->shape);
    for (whole at = 0; at < array.size; at++) set(&array, at, sums[at]);
    free(sums);
    return array;
}

static void gradients(const conv *call, const nnspec_array *cotangent) {
    whole outputs = call->o / call->groups;
    double *dx = (double *)calloc((size_t)call->x->size + 1, sizeof *dx);
    double *dweight = (double *)calloc((size_t)call->weight->size + 1, sizeof *dweight);
    double *dbias = (double *)calloc((size_t)call->o + 1, sizeof *dbias);
    for (whole at = 0; at < cotangent->size; at++) {
        double g = get(cotangent, at);
        whole column = at % call->ow, row = at / call->ow % call->oh;
        whole o = at / call->ow / call->oh % call->o, n = at / call->ow / call->oh / call->o;
        dbias[o] += g;
        for (whole c = 0; c < call->cg; c++)
            for (whole i = 0; i < call->kh; i++)
                for (whole j = 0; j < call->kw; j++) {
                    whole of_x = place(call, n, o / outputs * call->cg + c, row, i, column, j);
                    whole of_weight = ((o * call->cg + c) * call->kh + i) * call->kw + j;
                    if (of_x >= 0) dx[of_x] += g * get(call->weight, of_weight);
                    dweight[of_weight] += g * (of_x < 0 ? 0 : get(call->x, of_x));
                }
    }
    nnspec_array found[3] = {rounded("x", call->x, dx), rounded("weight", call->weight, dweight)};
    if (call->bias)
        found[2] = rounded("bias", call->bias, dbias);
    else
        free(dbias);
    nnspec_answer(found, call->bias ? 3 : 2);
    for (int which = 0; which < (call->bias ? 3 : 2); which++) free(found[which].data);
}

int main(void) {
    nnspec_request request;
    conv call;
    while (nnspec_read(&request)) {
        if (nnspec_is(&request, "capabilities")) {
            nnspec_capabilities("{\"name\": \"conv2d.c\", \"version\": \"1\", "
                                "\"blocks\": {\"conv2d\": {\"tiles\": [" TEXT(TILE) "]}}}");
        } else {
            const char *why = read_call(&request, &call);
            if (why)
                nnspec_refuse(why);
            else if (nnspec_is(&request, "gradients"))
                gradients(&call, nnspec_find(&request, "cotangent"));
            else
                forward(&call);
        }
        nnspec_free(&request);
    }
    return 0;
}
