/* What a program in C or C++ needs to answer nnspec's requests. It needs the standard library alone.

   The format is described in spec/protocol.md: a line of JSON, then raw little-endian arrays.

       nnspec_request request;
       while (nnspec_read(&request)) {
           if (nnspec_is(&request, "capabilities"))
               nnspec_capabilities("{\"blocks\": {\"relu\": {\"gradients\": false}}}");
           else {
               nnspec_array *x = nnspec_find(&request, "x");
               nnspec_array y = nnspec_make("y", x->dtype, x->rank, x->shape);
               ...                                     // y.data
               nnspec_answer(&y, 1);
               free(y.data);
           }
           nnspec_free(&request);
       }

   Arrays lie in memory as on a little-endian machine; on another one the program has to swap the bytes. */
#ifndef NNSPEC_H
#define NNSPEC_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__unix__) || defined(__APPLE__) /* arrays may lie in a file that both sides map */
#define NNSPEC_MAPS 1
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#define NNSPEC_ARRAYS 64
#define NNSPEC_RANK 32

typedef struct {
    char name[64], dtype[16]; /* "float32"; bfloat16 comes as its 16 bits */
    int rank;
    long long shape[NNSPEC_RANK], size; /* size: the number of elements */
    void *data;
} nnspec_array;

typedef struct {
    char *header;
    nnspec_array arrays[NNSPEC_ARRAYS];
    int count;
    char *mapped; /* the file that the arrays lie in, NULL where they came by standard input */
    size_t length;
} nnspec_request;

static int nnspec_file = -1; /* the file of the request that is not yet answered */

/* -- JSON: just enough to find a value by its key ---------------------------------------------------------------- */

static inline const char *nnspec_space(const char *at) { return at + strspn(at, " \t\r\n"); }

/* Returns what follows a value. */
static inline const char *nnspec_after(const char *at) {
    int depth = 0;
    do {
        at = nnspec_space(at);
        if (*at == '"') {
            for (at++; *at && *at != '"'; at++)
                if (*at == '\\' && at[1]) at++;
            at += *at == '"';
        } else if (*at == '{' || *at == '[') {
            depth++, at++;
        } else if (*at == '}' || *at == ']') {
            depth--, at++;
        } else if (*at == ',' || *at == ':') {
            at++;
        } else {
            at += strcspn(at, ",:]}\" \t\r\n");
        }
    } while (*at && depth > 0);
    return at;
}

/* Returns the value of a key in an object, NULL where there is none. */
static inline const char *nnspec_value(const char *object, const char *key) {
    size_t length = strlen(key);
    const char *at = nnspec_space(object);
    if (*at != '{') return NULL;
    for (at = nnspec_space(at + 1); *at == '"'; at = nnspec_space(at + (*at == ','))) {
        int found = !strncmp(at + 1, key, length) && at[1 + length] == '"';
        at = nnspec_space(nnspec_after(at));
        at = nnspec_space(at + 1); /* after the colon */
        if (found) return at;
        at = nnspec_space(nnspec_after(at));
    }
    return NULL;
}

/* Copies a string without escapes, such as a name. */
static inline void nnspec_string(const char *value, char *to, size_t room) {
    size_t length = value && *value == '"' ? strcspn(value + 1, "\"") : 0;
    if (length >= room) length = room - 1;
    if (length) memcpy(to, value + 1, length);
    to[length] = 0;
}

/* -- requests ---------------------------------------------------------------------------------------------------- */

static inline size_t nnspec_width(const char *dtype) {
    return strstr(dtype, "128") ? 16 : strstr(dtype, "64") ? 8 : strstr(dtype, "32") ? 4 : strstr(dtype, "16") ? 2 : 1;
}

static inline nnspec_array nnspec_shaped(const char *name, const char *dtype, int rank, const long long *shape) {
    nnspec_array array;
    memset(&array, 0, sizeof array);
    snprintf(array.name, sizeof array.name, "%s", name);
    snprintf(array.dtype, sizeof array.dtype, "%s", dtype);
    array.rank = rank, array.size = 1;
    for (int axis = 0; axis < rank; axis++) array.size *= array.shape[axis] = shape[axis];
    return array;
}

static inline nnspec_array nnspec_make(const char *name, const char *dtype, int rank, const long long *shape) {
    nnspec_array array = nnspec_shaped(name, dtype, rank, shape);
    array.data = calloc((size_t)array.size + 1, nnspec_width(dtype));
    return array;
}

static inline void nnspec_free(nnspec_request *request) {
#ifdef NNSPEC_MAPS
    if (request->mapped) munmap(request->mapped, request->length), request->count = 0;
    if (nnspec_file >= 0) close(nnspec_file), nnspec_file = -1;
#endif
    for (int n = 0; n < request->count; n++) free(request->arrays[n].data);
    free(request->header);
}

static inline void nnspec_fail(const char *why) {
    fprintf(stderr, "nnspec.h: %s\n", why);
    exit(1);
}

/* Maps the file that a request names. The program may write to its arrays; the file does not change. */
static inline void nnspec_map(nnspec_request *request) {
    request->mapped = NULL, request->length = 0;
#ifdef NNSPEC_MAPS
    char path[4096];
    struct stat about;
    const char *named = nnspec_value(request->header, "file");
    if (!named) return;
    nnspec_string(named, path, sizeof path);
    nnspec_file = open(path, O_RDWR);
    if (nnspec_file < 0 || fstat(nnspec_file, &about)) nnspec_fail("the file of a request cannot be opened");
    request->length = (size_t)about.st_size;
    void *at = mmap(NULL, request->length, PROT_READ | PROT_WRITE, MAP_PRIVATE, nnspec_file, 0);
    if (at == MAP_FAILED) nnspec_fail("the file of a request cannot be mapped");
    request->mapped = (char *)at;
#endif
}

/* Reads a request; returns 0 at the end of standard input. */
static inline int nnspec_read(nnspec_request *request) {
    size_t length = 0, room = 1024;
    int c;
    request->header = (char *)malloc(room), request->count = 0, request->mapped = NULL;
    while ((c = getchar()) != EOF && c != '\n') {
        if (length + 2 > room) request->header = (char *)realloc(request->header, room *= 2);
        request->header[length++] = (char)c;
    }
    request->header[length] = 0;
    if (c == EOF) return nnspec_free(request), 0;
    nnspec_map(request);
    const char *at = nnspec_value(request->header, "arrays");
    if (!at || *at != '[') nnspec_fail("a request without arrays");
    for (at = nnspec_space(at + 1); *at == '{'; at = nnspec_space(at + (*at == ','))) {
        char name[64], dtype[16];
        long long shape[NNSPEC_RANK];
        int rank = 0;
        nnspec_string(nnspec_value(at, "name"), name, sizeof name);
        nnspec_string(nnspec_value(at, "dtype"), dtype, sizeof dtype);
        const char *size = nnspec_value(at, "shape");
        for (size = nnspec_space(size + 1); *size && *size != ']' && rank < NNSPEC_RANK;) {
            char *end;
            shape[rank++] = strtoll(size, &end, 10);
            size = nnspec_space(end), size = nnspec_space(size + (*size == ','));
        }
        if (request->count == NNSPEC_ARRAYS) nnspec_fail("a request with too many arrays");
        nnspec_array *array = &request->arrays[request->count++];
        *array = nnspec_shaped(name, dtype, rank, shape);
        if (request->mapped)
            array->data = request->mapped + strtoll(nnspec_value(at, "offset"), NULL, 10);
        else
            array->data = calloc((size_t)array->size + 1, nnspec_width(dtype));
        if (!array->data) nnspec_fail("a request for which there is no memory");
        if (!request->mapped &&
            fread(array->data, nnspec_width(dtype), (size_t)array->size, stdin) != (size_t)array->size)
            nnspec_fail("a request that ends too early");
        at = nnspec_space(nnspec_after(at));
    }
    return 1;
}

/* Returns whether it is a request of this kind: "capabilities", "forward" or "gradients". */
static inline int nnspec_is(const nnspec_request *request, const char *kind) {
    char own[32];
    nnspec_string(nnspec_value(request->header, "request"), own, sizeof own);
    return !strcmp(own, kind);
}

/* Returns whether it is about this block. */
static inline int nnspec_block(const nnspec_request *request, const char *block) {
    char own[32];
    nnspec_string(nnspec_value(request->header, "block"), own, sizeof own);
    return !strcmp(own, block);
}

/* Returns an array by its name, NULL where it is absent. */
static inline nnspec_array *nnspec_find(nnspec_request *request, const char *name) {
    for (int n = 0; n < request->count; n++)
        if (!strcmp(request->arrays[n].name, name)) return &request->arrays[n];
    return NULL;
}

/* Returns the JSON text of an argument, NULL where the request does not have it: it then has its default. */
static inline const char *nnspec_argument(const nnspec_request *request, const char *name) {
    return nnspec_value(nnspec_value(request->header, "arguments"), name);
}

/* Reads a number; returns 0 where the argument is something else. */
static inline int nnspec_number(const nnspec_request *request, const char *name, double otherwise, double *value) {
    const char *at = nnspec_argument(request, name);
    char *end;
    *value = at ? strtod(at, &end) : otherwise;
    return !at || (end != at && strchr(",} \t", *end) != NULL);
}

/* Reads true or false; returns 0 where the argument is something else. */
static inline int nnspec_flag(const nnspec_request *request, const char *name, int otherwise, int *value) {
    const char *at = nnspec_argument(request, name);
    *value = at ? !strncmp(at, "true", 4) : otherwise;
    return !at || *value || !strncmp(at, "false", 5);
}

/* Reads a whole number, for rows and columns, or a pair of them; returns 0 where the argument is something else. */
static inline int nnspec_pair(const nnspec_request *request, const char *name, long long otherwise, long long *pair) {
    const char *at = nnspec_argument(request, name);
    char *end;
    int several = at && *at == '[';
    pair[0] = pair[1] = otherwise;
    if (!at) return 1;
    pair[0] = pair[1] = strtoll(at + several, &end, 10);
    if (end == at + several) return 0;
    if (!several) return strchr(",} \t", *end) != NULL;
    at = nnspec_space(end);
    if (*at++ != ',') return 0;
    pair[1] = strtoll(at, &end, 10);
    return end != at && *nnspec_space(end) == ']';
}

/* -- answers ----------------------------------------------------------------------------------------------------- */

/* Writes an array to the end of the request's file, and returns where it lies there. */
static inline long long nnspec_put(const nnspec_array *array) {
    long long begin = -1;
#ifdef NNSPEC_MAPS
    const char *data = (const char *)array->data;
    size_t left = nnspec_width(array->dtype) * (size_t)array->size;
    begin = (long long)lseek(nnspec_file, 0, SEEK_END);
    while (left) {
        ssize_t done = write(nnspec_file, data, left);
        if (done <= 0) nnspec_fail("an answer does not fit into the file of its request");
        data += done, left -= (size_t)done;
    }
#endif
    (void)array;
    return begin;
}

static inline void nnspec_answer(const nnspec_array *arrays, int count) {
    printf("{\"nnspec\": 1, \"arrays\": [");
    for (int n = 0; n < count; n++) {
        printf("%s{\"name\": \"%s\", \"dtype\": \"%s\", \"shape\": [", n ? ", " : "", arrays[n].name, arrays[n].dtype);
        for (int axis = 0; axis < arrays[n].rank; axis++) printf("%s%lld", axis ? ", " : "", arrays[n].shape[axis]);
        printf("]");
        if (nnspec_file >= 0) printf(", \"offset\": %lld", nnspec_put(&arrays[n]));
        printf("}");
    }
    printf("]}\n");
    for (int n = 0; n < count && nnspec_file < 0; n++)
        fwrite(arrays[n].data, nnspec_width(arrays[n].dtype), (size_t)arrays[n].size, stdout);
    fflush(stdout);
}

/* `reason`: without quotation marks, backslashes and line feeds. */
static inline void nnspec_refuse(const char *reason) {
    printf("{\"nnspec\": 1, \"refused\": \"%s\"}\n", reason);
    fflush(stdout);
}

/* Says that the program does not claim to do this call. `reason`: as for a refusal. */
static inline void nnspec_unsupported(const char *reason) {
    printf("{\"nnspec\": 1, \"unsupported\": \"%s\"}\n", reason);
    fflush(stdout);
}

/* `json`: the object that the page describes. */
static inline void nnspec_capabilities(const char *json) {
    const char *maps = "";
#ifdef NNSPEC_MAPS
    if (!getenv("NNSPEC_PIPE")) maps = "\"maps\": true, ";
#endif
    printf("{\"nnspec\": 1, \"capabilities\": {%s%s}\n", maps, nnspec_space(json) + 1);
    fflush(stdout);
}

#endif
