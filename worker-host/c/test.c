/* What the library does with every frame of protocol/recorded/frames.txt that the supervisor says: whole, cut after every byte,
 * and with every byte changed. Each stands in memory of exactly its length, so that a sanitizer sees a read behind it. And
 * what it does with random bytes as values. `test frames.txt`; exit status 0 if all is well. */
#define WORKHALL_IMPLEMENTATION
#include "workhall.h"

#include <stdio.h>

static unsigned long frames, tasks, refusals;
static volatile unsigned sum; /* what is read is used */

static void require(bool is_so, const char *what) {
    if (is_so) return;
    fprintf(stderr, "test.c: %s\n", what);
    exit(1);
}

/* All that can be asked of a value is asked of it. */
static void look_at(wh_value value) {
    wh_reader reader = wh_read(value);
    wh_item item;
    wh_value part;
    wh_signal signal;
    while (wh_next(&reader, &item)) {
        for (size_t at = 0; at < item.length; at++) sum += item.data[at];
    }
    reader = wh_read(value);
    while (wh_next_value(&reader, &part)) sum += part.bytes[part.length - 1];
    wh_find(value, "key", &part);
    wh_signal_of(value, &signal);
}

static int echo(wh_task *task, void *state) {
    wh_value value;
    wh_address worker;
    wh_signal signal;
    const char *text;
    const unsigned char *bytes;
    size_t length;
    uint64_t whole;
    int64_t integer;
    double real;
    bool boolean;
    (void)state;
    look_at(task->args);
    for (uint32_t at = 0; at < wh_arg_count(task) && at < 100; at++) {
        require(wh_arg(task, at, &value) == 0, "an argument of a whole list is there");
        wh_arg_bool(task, at, &boolean);
        wh_arg_int(task, at, &integer);
        wh_arg_uint(task, at, &whole);
        wh_arg_double(task, at, &real);
        wh_arg_text(task, at, &text, &length);
        wh_arg_bytes(task, at, &bytes, &length);
        wh_arg_address(task, at, &worker);
        wh_arg_signal(task, at, &signal);
    }
    task->failed = false;
    wh_put(wh_result(task), task->args);
    return 0;
}

/* The task of the page, so that also its method is known, and the error's text for one that is not. */
static const wh_method methods[] = {{"add", NULL, echo}, {NULL, NULL, NULL}};

static void hear(unsigned kind, const unsigned char *bytes, size_t length) {
    unsigned char *exact = malloc(length ? length : 1);
    wh_link *link = calloc(1, sizeof *link);
    require(exact && link, "there is memory");
    if (length) memcpy(exact, bytes, length);
    link->fd = -1;
    link->is_worker = true;
    link->methods = methods;
    link->awaited = length > 1 ? exact[1] : 4; /* the ref of an answer, mostly */
    wh_reader body = {exact, exact + length};
    frames++;
    if (wh_take_in(link, kind, body)) {
        refusals++;
        require(link->error[0] != 0, "an error has a text");
    }
    free(exact);
    while (link->first) {
        wh_task *task = link->first;
        link->first = task->next;
        tasks++;
        int failed = wh_execute(task, NULL);
        require(wh_settle(link, task, failed) >= 0, "every task can be settled");
        wh_free_task(task);
        link->result.length = 0;
    }
    link->last = NULL;
    wh_receipt receipt;
    wh_outcome outcome;
    wh_signal signal;
    bool first;
    if (link->has_receipt) wh_receipt_of(link, &receipt, &first, &signal);
    if (link->has_outcome && wh_outcome_of(link, &outcome) == 0) look_at(outcome.value);
    wh_close(link);
}

static void every_change(unsigned kind, unsigned char *body, size_t length) {
    unsigned long refused = refusals;
    hear(kind, body, length);
    require(refusals == refused || kind == WH_K_ERROR, "every recorded frame is understood");
    for (size_t cut = 0; cut < length; cut++) hear(kind, body, cut);
    for (size_t at = 0; at < length; at++) {
        unsigned char was = body[at];
        for (unsigned byte = 0; byte < 256; byte++) {
            body[at] = (unsigned char)byte;
            hear(kind, body, length);
        }
        body[at] = was;
    }
}

static void recorded(FILE *file) {
    char line[1 << 16];
    unsigned char frame[1 << 14];
    while (fgets(line, sizeof line, file)) {
        char *hex = strchr(line, '|');
        size_t length = 0;
        int used;
        unsigned byte;
        if (line[0] != '<' || !hex) continue;
        for (hex++; sscanf(hex, " %2x%n", &byte, &used) == 1; hex += used) frame[length++] = (unsigned char)byte;
        require(length >= WH_HEADER && frame[0] == WH_VERSION, "a recorded frame has a header");
        every_change(frame[1], frame + WH_HEADER, length - WH_HEADER);
    }
}

/* Random bytes, mostly of MessagePack's heads, in memory of exactly their length. */
static void random_values(void) {
    uint64_t seed = UINT64_C(0x9e3779b97f4a7c15);
    for (int round = 0; round < 200000; round++) {
        size_t length = (size_t)(seed >> 40) % 40;
        unsigned char *bytes = malloc(length ? length : 1);
        require(bytes != NULL, "there is memory");
        for (size_t at = 0; at < length; at++) {
            seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            bytes[at] = (unsigned char)((seed >> 60) < 10 ? 0x80 + (seed >> 33) % 0x70 : seed >> 33);
        }
        wh_value value = {bytes, length};
        look_at(value);
        wh_is_value(value);
        wh_utf8(bytes, length);
        free(bytes);
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    }
}

/* What is written is read again as it was. */
static void there_and_back(void) {
    static const int64_t integers[] = {0, 127, 128, 255, 256, 65535, 65536, 4294967295, 4294967296, INT64_MAX,
                                       -1, -32, -33, -128, -129, -32768, -32769, -2147483648LL, -2147483649LL, INT64_MIN};
    static const size_t lengths[] = {0, 1, 31, 32, 255, 256, 65535, 65536};
    wh_item item;
    for (size_t at = 0; at < sizeof integers / sizeof *integers; at++) {
        wh_writer out = {0};
        wh_int(&out, integers[at]);
        wh_reader reader = wh_read(wh_written(&out));
        require(wh_is_value(wh_written(&out)) && wh_next(&reader, &item), "an integer is a value");
        require((item.type == WH_INT ? item.integer : (int64_t)item.whole) == integers[at], "an integer comes back as it was");
        require((item.type == WH_INT) == (integers[at] < 0), "an integer below 0 is a WH_INT");
        wh_free(&out);
    }
    for (size_t at = 0; at < sizeof lengths / sizeof *lengths; at++) {
        wh_writer out = {0};
        char *text = malloc(lengths[at] + 1);
        require(text != NULL, "there is memory");
        memset(text, 'x', lengths[at]);
        wh_list(&out, (uint32_t)lengths[at] + 2);
        for (size_t n = 0; n < lengths[at]; n++) wh_nil(&out);
        wh_text_of(&out, text, lengths[at]);
        wh_bytes(&out, text, lengths[at]);
        require(wh_is_value(wh_written(&out)), "a list of that length is a value");
        out.length--;
        require(!wh_is_value(wh_written(&out)), "a list that ends early is none");
        wh_free(&out);
        free(text);
    }
    for (int levels = WH_LEVELS_MAX; levels <= WH_LEVELS_MAX + 1; levels++) {
        wh_writer out = {0};
        for (int level = 0; level < levels; level++) wh_list(&out, 1);
        wh_nil(&out);
        require(wh_is_value(wh_written(&out)) == (levels == WH_LEVELS_MAX), "64 levels are a value, 65 are none");
        wh_free(&out);
    }
}

int main(int argc, char **argv) {
    FILE *file = argc == 2 ? fopen(argv[1], "r") : NULL;
    require(file != NULL, "usage: test protocol/recorded/frames.txt");
    recorded(file);
    fclose(file);
    random_values();
    there_and_back();
    require(frames > 10000 && tasks > 500 && refusals > 500, "the frames were found");
    printf("%lu frames, %lu tasks, %lu not understood\n", frames, tasks, refusals);
    return 0;
}
