/* What the library does with every frame of protocol/recorded/frames.txt that the supervisor says: whole, cut after every byte,
 * and with every byte changed. Each stands in memory of exactly its length, so that a sanitizer sees a read behind it. And
 * what it does with random bytes as values, with null pointers, with texts that are no UTF-8, with values that JSON cannot
 * have, when the supervisor goes, when there is no memory, when a kill or a cancel was read behind its task, and when a signal
 * interrupts its connect.
 * `test frames.txt`; exit status 0 if all is well. */
#define _GNU_SOURCE
#include <stdbool.h>
#include <stdlib.h>

/* Where a test says so, the library is refused memory, once. */
static bool refuse_memory;
static void *scarce_malloc(size_t size) {
    bool refuse = refuse_memory;
    refuse_memory = false;
    return refuse ? NULL : malloc(size);
}

#define WORKHALL_IMPLEMENTATION
#define malloc scarce_malloc
#include "workhall.h"
#undef malloc

#include <signal.h>
#include <stdio.h>
#include <sys/time.h>
#include <sys/wait.h>

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

/* A client's link, and what stands for the supervisor at its other end. */
static wh_link *link_to(int *supervisor) {
    int ends[2];
    wh_link *link = calloc(1, sizeof *link);
    require(link && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "there is a connection");
    link->fd = ends[0];
    *supervisor = ends[1];
    return link;
}

/* The supervisor says one frame. */
static void says(int supervisor, unsigned kind, const void *body, size_t length) {
    unsigned char frame[100] = {WH_VERSION, (unsigned char)kind, 0, 0, (unsigned char)length};
    require(length <= sizeof frame - WH_HEADER, "a frame of the test is small");
    memcpy(frame + WH_HEADER, body, length);
    ssize_t sent = send(supervisor, frame, WH_HEADER + length, 0);
    require(sent == (ssize_t)(WH_HEADER + length), "it is sent");
}

/* A function has failed, and the error has this part. */
static void refused(int result, const char *error, const char *part) {
    if (result == -1 && strstr(error, part)) return;
    fprintf(stderr, "test.c: `%s` was to be the error, and it is `%s` (%d)\n", part, error, result);
    exit(1);
}

/* What the caller has not thought of is an error that names it, and no byte of it goes to the supervisor. */
static void wrong_arguments(void) {
    int supervisor;
    wh_link *link = link_to(&supervisor);
    const char *broken = "caf\xe9 au lait", *none = NULL;
    char byte;
    wh_receipt receipt;
    wh_outcome outcome;
    wh_conditions always = {false, false, 0, 0};
    wh_signal signal, whole, odd, none_made, half;
    wh_value nil = {(const unsigned char *)"\xc0", 1}, nothing = {NULL, 5};
    /* {"k": ["é", "\xe9"]}, and its key the same. */
    wh_value in_a_list = {(const unsigned char *)"\x81\xa1k\x92\xa2\xc3\xa9\xa1\xe9", 9};
    wh_value in_a_key = {(const unsigned char *)"\x81\xa1\xe9\xc0", 4};
    wh_writer args = {0};
    memset(&odd, 'x', sizeof odd);
    memset(whole.id, 'a', 32);
    whole.id[32] = 0;
    memset(&none_made, 0, sizeof none_made);
    half = whole;
    half.id[7] = 0;
    refused(wh_call(link, wh_name("w"), none, NULL, &receipt), wh_error(link), "the name of the method is NULL");
    refused(wh_call(link, wh_name("w"), broken, NULL, &receipt), wh_error(link), "the name of the method is no UTF-8: byte 3 is 0xe9");
    refused(wh_call(link, wh_name(none), "m", NULL, &receipt), wh_error(link), "the name of the worker is NULL");
    refused(wh_call(link, wh_name(broken), "m", NULL, &receipt), wh_error(link), "the name of the worker is no UTF-8");
    refused(wh_call(link, wh_self(), "m", NULL, &receipt), wh_error(link), "wh_self() is for a kill");
    refused(wh_call_if(link, wh_name("w"), none, NULL, always, &receipt), wh_error(link), "the name of the method is NULL");
    refused(wh_call_and_wait(link, wh_name("w"), none, NULL, &receipt, &outcome), wh_error(link), "the name of the method is NULL");
    refused(wh_call_and_wait(link, wh_name("w"), "m", NULL, &receipt, NULL), wh_error(link), "no place for the outcome");
    refused(wh_call(link, wh_name("w"), "m", &args, &receipt), wh_error(link), "begin with wh_list(&args, COUNT)");
    refused(wh_kill(link, wh_name(none), &receipt), wh_error(link), "the name of the worker is NULL");
    refused(wh_kill(link, wh_name(broken), &receipt), wh_error(link), "the name of the worker is no UTF-8");
    refused(wh_signal_new(link, broken, 0, &signal), wh_error(link), "the description of the signal is no UTF-8: byte 3 is 0xe9");
    refused(wh_signal_new(link, "", 0, NULL), wh_error(link), "no place for the new signal");
    refused(wh_signal_set(link, whole, none, nil), wh_error(link), "the key of the signal's value is NULL");
    refused(wh_signal_set(link, whole, broken, nil), wh_error(link), "the key of the signal's value is no UTF-8");
    refused(wh_signal_set(link, whole, "key", nothing), wh_error(link), "is not one value");
    refused(wh_signal_set(link, whole, "key", in_a_list), wh_error(link), "a text in it is no UTF-8");
    refused(wh_signal_set(link, odd, "key", nil), wh_error(link), "this is no signal");
    refused(wh_signal_trigger(link, odd, NULL), wh_error(link), "this is no signal");
    refused(wh_signal_wait(link, odd, 0, &outcome), wh_error(link), "this is no signal");
    refused(wh_signal_wait(link, whole, 0, NULL), wh_error(link), "no place for the outcome");
    refused(wh_serve(link, methods, NULL), wh_error(link), "wh_attach() makes one that has");
    refused(wh_leave(link, true), wh_error(link), "only who has attached leaves");
    /* What was written wrongly is said by who is handed it. */
    for (int at = 0; at < 9; at++) {
        static const char *const parts[] = {"a text is NULL", "a text is no UTF-8", "bytes are NULL", "a value is none", "a signal is none", "a signal is none", "a signal is none",
                                            "a text is no UTF-8, in a value that was put", "a text is no UTF-8, in a value that was put"};
        wh_list(&args, 1);
        if (at == 0) wh_text(&args, none);
        if (at == 1) wh_text(&args, broken);
        if (at == 2) wh_bytes(&args, none, 5);
        if (at == 3) wh_put(&args, nothing);
        if (at == 4) wh_signal_put(&args, odd);
        if (at == 5) wh_signal_put(&args, none_made);
        if (at == 6) wh_signal_put(&args, half);
        if (at == 7) wh_put(&args, in_a_list);
        if (at == 8) wh_put(&args, in_a_key);
        refused(wh_call(link, wh_name("w"), "m", &args, &receipt), wh_error(link), parts[at]);
        require(!wh_is_value(wh_written(&args)), "what was written wrongly is no value");
        wh_free(&args);
    }
    require(recv(supervisor, &byte, 1, MSG_DONTWAIT) < 0 && link->out.length == 0, "nothing was sent");
    /* Without a link there is nobody to tell, but for wh_error(). */
    refused(wh_call(NULL, wh_name("w"), "m", NULL, &receipt), wh_error(NULL), "there is no link");
    refused(wh_kill(NULL, wh_self(), &receipt), wh_error(NULL), "there is no link");
    refused(wh_signal_new(NULL, "", 0, &signal), wh_error(NULL), "there is no link");
    refused(wh_signal_set(NULL, whole, "key", nil), wh_error(NULL), "there is no link");
    refused(wh_signal_trigger(NULL, whole, NULL), wh_error(NULL), "there is no link");
    refused(wh_signal_wait(NULL, whole, 0, &outcome), wh_error(NULL), "there is no link");
    refused(wh_serve(NULL, methods, NULL), wh_error(NULL), "there is no link");
    refused(wh_leave(NULL, false), wh_error(NULL), "there is no link");
    close(supervisor);
    wh_close(link);
    wh_close(NULL);
}

/* Only wh_self() is oneself: no worker has the number 0, and a kill of it, as of any address of zeros, is for nobody. */
static void number_0(void) {
    static const unsigned char no_worker[] = "\x00\x01\x01\x00";
    wh_address zeros = {NULL, 0};
    const wh_address whom[] = {wh_number(0), zeros, wh_self()};
    static const unsigned char bodies[][9] = {"\x01\x01\x00\x01\x00\x01", "\x01\x01\x00\x01\x00\x01", "\x00\x01\x00\x01"};
    static const size_t lengths[] = {6, 6, 4};
    for (size_t at = 0; at < 3; at++) {
        int supervisor;
        unsigned char said[100];
        wh_receipt receipt;
        wh_link *link = link_to(&supervisor);
        says(supervisor, WH_K_RECEIPT, no_worker, sizeof no_worker - 1);
        require(shutdown(supervisor, SHUT_WR) == 0, "the supervisor says no more");
        require(wh_kill(link, whom[at], &receipt) == 0, wh_error(link));
        ssize_t length = recv(supervisor, said, sizeof said, 0);
        require(length >= (ssize_t)(WH_HEADER + lengths[at]) && said[1] == WH_K_KILL, "the kill was said");
        require(!memcmp(said + WH_HEADER, bodies[at], lengths[at]), "the kill says for whom it is");
        close(supervisor);
        wh_close(link);
    }
}

/* Neither the values nor a method's own functions stumble over a null pointer. */
static void null_pointers(void) {
    wh_reader reader = wh_read(wh_written(NULL));
    wh_item item;
    wh_value value, map = {(const unsigned char *)"\x81\xa1k\x01", 4};
    const char *none = NULL;
    char error[300];
    require(!wh_next(&reader, &item) && !wh_next(NULL, &item) && !wh_next(&reader, NULL), "there is no item in nothing");
    require(!wh_next_value(NULL, &value) && !wh_next_value(&reader, NULL), "there is no value in nothing");
    require(!wh_find(map, none, &value) && wh_find(map, "k", NULL), "who only asks gets an answer");
    require(!wh_signal_of(map, NULL), "it is no signal");
    wh_nil(NULL);
    wh_text(NULL, "text");
    wh_text(NULL, none);
    wh_list(NULL, 5);
    wh_free(NULL);
    require(!wh_connect("/no/such/socket", NULL, 300), "nobody is there, and why is not wanted");
    require(!wh_attach("/no/such/socket", none, error, sizeof error), "there is no name");
    refused(-1, error, "cannot attach: the name of the worker is NULL");
    require(!wh_attach("/no/such/socket", "\xff", error, sizeof error), "the name is none");
    refused(-1, error, "the name of the worker is no UTF-8");
    require(!wh_link_of(NULL) && !wh_result(NULL) && !wh_sender(NULL, NULL) && !wh_arg_count(NULL), "there is no task");
    require(!wh_end_requested(NULL) && !wh_is_cancelled(NULL) && wh_fail(NULL, "why") == -1, "there is no task");
    require(wh_arg(NULL, 0, &value) == -1 && wh_arg_text(NULL, 0, &none, NULL) == -1, "there is no task");
}

/* What each of these does wrong settles its task as failed. */
static int no_places(wh_task *task, void *state) {
    (void)state;
    const char *part = "has no place for argument 1: the pointer is NULL", *error = task->link->fail_text;
    refused(wh_arg(task, 0, NULL), error, part);
    refused(wh_arg_bool(task, 0, NULL), error, part);
    refused(wh_arg_int(task, 0, NULL), error, part);
    refused(wh_arg_uint(task, 0, NULL), error, part);
    refused(wh_arg_double(task, 0, NULL), error, part);
    refused(wh_arg_text(task, 0, NULL, NULL), error, part);
    refused(wh_arg_bytes(task, 0, NULL, NULL), error, part);
    refused(wh_arg_address(task, 0, NULL), error, part);
    refused(wh_arg_signal(task, 0, NULL), error, part);
    return -1;
}

static int broken_error(wh_task *task, void *state) {
    (void)state;
    return wh_fail(task, "no caf\xe9: %s", "\xff\xc3");
}

static int no_error(wh_task *task, void *state) {
    const char *none = state;
    return wh_fail(task, none, NULL);
}

static int broken_result(wh_task *task, void *state) {
    (void)state;
    wh_text(wh_result(task), "caf\xe9");
    return 0;
}

/* The value is another's, and it is not handed on. */
static int broken_value(wh_task *task, void *state) {
    wh_value value = {(const unsigned char *)"\x91\xa1\xe9", 3};
    (void)state;
    wh_put(wh_result(task), value);
    return 0;
}

/* What has failed stays failed, also where the method has forgotten to return it. */
static int forgotten_failure(wh_task *task, void *state) {
    (void)state;
    wh_fail(task, "no such row: %d", 5);
    wh_text(wh_result(task), "fine");
    return 0;
}

static int forgotten_misfit(wh_task *task, void *state) {
    const char *text;
    (void)state;
    wh_arg_text(task, 0, &text, NULL);
    return 0;
}

static int good_result(wh_task *task, void *state) {
    (void)state;
    wh_text(wh_result(task), "caf\xc3\xa9");
    return 0;
}

/* What a JSON peer could not send back. */
static int result_of_bytes(wh_task *task, void *state) {
    const wh_value *value = state;
    wh_put(wh_result(task), *value);
    return 0;
}

/* So many lists or maps in each other; the innermost is empty. */
static void nest(wh_writer *out, int count, bool in_maps) {
    while (count--) {
        if (in_maps) wh_map(out, count != 0);
        else wh_list(out, count != 0);
        if (in_maps && count) wh_text(out, "k");
    }
}

/* A supervisor that answers what is sent with this receipt, if it is not null, and says no more. */
static wh_link *link_to_one_who_says(int *supervisor, const char *receipt, size_t length) {
    wh_link *link = link_to(supervisor);
    if (receipt) says(*supervisor, WH_K_RECEIPT, receipt, length);
    require(shutdown(*supervisor, SHUT_WR) == 0, "the supervisor says no more");
    return link;
}

/* What came of it: refused, because `what` has this `fault`, and nothing went out; or a message of this kind did. */
static void went_out_or_not(int result, wh_link *link, int supervisor, const char *what, const char *fault, unsigned kind) {
    unsigned char said[400];
    ssize_t length = recv(supervisor, said, sizeof said, MSG_DONTWAIT);
    if (fault) {
        refused(result, wh_error(link), what);
        refused(result, wh_error(link), fault);
        require(length < 0 && link->out.length == 0, "nothing was sent");
    } else {
        require(result == 0, wh_error(link));
        require(length > (ssize_t)WH_HEADER && said[1] == kind, "the message was sent");
    }
    close(supervisor);
    wh_close(link);
}

/* What is the error of these arguments, and of this value of a signal, or null: then it is sent. */
static void is_sent_or_not(const wh_writer *args, wh_value value, const char *of_args, const char *of_value) {
    int supervisor;
    wh_receipt receipt;
    wh_signal signal;
    memset(signal.id, 'a', 32);
    signal.id[32] = 0;
    wh_link *link = link_to_one_who_says(&supervisor, of_args ? NULL : "\x00\x01\x00\x01w\x01\x01", 7);
    int result = wh_call(link, wh_name("w"), "m", args, &receipt);
    went_out_or_not(result, link, supervisor, "the arguments for `m` ", of_args, WH_K_CALL);
    link = link_to_one_who_says(&supervisor, of_value ? NULL : "\x00\x01\x0c", 3);
    result = wh_signal_set(link, signal, "key", value);
    went_out_or_not(result, link, supervisor, "what is to be written under `key` ", of_value, WH_K_SIGNAL_SET);
}

static void values_that_json_cannot_have(void) {
    static const struct {
        const char *value;
        size_t length;
        const char *said; /* null: it is done */
    } rows[] = {
#define VALUE(bytes) bytes, sizeof bytes - 1
        {VALUE("\x81\xa1k\x01"), NULL},
        {VALUE("\x81\xa6$bytes\xa4\x41\x41H/"), NULL},
        {VALUE("\x81\xa6$bytes\xa4/v8="), NULL},
        {VALUE("\x81\xa6$bytes\xa4\x41\x41=="), NULL},
        {VALUE("\x81\xa6$bytes\xa0"), NULL},
        {VALUE("\x81\xa6$bytes\x05"), NULL}, /* no text: an object like any other */
        {VALUE("\x82\xa6$bytes\xa1n\xa1x\x01"), NULL}, /* not alone */
        {VALUE("\x92\x81\xa1k\x90\x82\xa1\x61\x81\xa1\x62\x01\xa1\x63\x02"), NULL}, /* lists and maps between the keys */
        {VALUE("\x81\x90\x01"), "a key of a map in it is a list, and a text, a finite number, true or false is needed"},
        {VALUE("\x81\x81\xa1k\x01\x01"), "a key of a map in it is a map, and a text, a finite number, true or false is needed"},
        {VALUE("\x81\xc0\x01"), "a key of a map in it is nil, and a text, a finite number, true or false is needed"},
        {VALUE("\x81\x05\x01"), NULL}, /* they become texts */
        {VALUE("\x92\x01\x82\xa1k\x91\x80\xc3\x01"), NULL},
        {VALUE("\x92\x01\x82\xa1k\x91\x80\xc0\x01"), "a key of a map in it is nil"},
        {VALUE("\x81\xcb\x3f\xf8\0\0\0\0\0\0\x01"), NULL},
        {VALUE("\x81\xcb\x7f\xef\xff\xff\xff\xff\xff\xff\x01"), NULL}, /* the largest of all */
        {VALUE("\x81\xcb\x7f\xf8\0\0\0\0\0\0\x01"), "a key of a map in it is NaN or infinite, and a text, a finite number, true or false is needed"},
        {VALUE("\x81\xcb\x7f\xf0\0\0\0\0\0\0\x01"), "a key of a map in it is NaN or infinite"},
        {VALUE("\x81\xcb\xff\xf0\0\0\0\0\0\0\x01"), "a key of a map in it is NaN or infinite"},
        {VALUE("\x82\xa1k\x01\xca\x7f\xc0\0\0\x01"), "a key of a map in it is NaN or infinite"}, /* of 32 bits */
        {VALUE("\x81\xca\x7f\x80\0\0\x01"), "a key of a map in it is NaN or infinite"},
        {VALUE("\x92\xcb\x7f\xf8\0\0\0\0\0\0\x81\xa1k\xca\x7f\x80\0\0"), NULL}, /* no keys: they become null */
        {VALUE("\x81\xd4\x05\x01\x01"), "a key of a map in it is an extension"},
        {VALUE("\x91\xd4\x05\x01"), "JSON has nothing for an extension of MessagePack"},
        {VALUE("\x81\xc4\x01k\x01"), "a key of a map in it is bytes, and a text, a finite number, true or false is needed"},
        {VALUE("\x81\xa6$bytes\xa7no base"), "a map in it is {\"$bytes\": …}, which stands for bytes, and holds no base64"},
        {VALUE("\x81\xa6$bytes\xa3\x41\x41="), "holds no base64"}, /* padding is missing, */
        {VALUE("\x81\xa6$bytes\xa2\x41\x41"), "holds no base64"},
        {VALUE("\x81\xa6$bytes\xa4\x41==="), "holds no base64"}, /* too much, */
        {VALUE("\x81\xa6$bytes\xa4===="), "holds no base64"},
        {VALUE("\x81\xa6$bytes\xa8\x41\x41==\x41\x41\x41\x41"), "holds no base64"}, /* not at the end, */
        {VALUE("\x81\xa6$bytes\xa4\x41\x42=="), "holds no base64"}, /* a bit too much, */
        {VALUE("\x81\xa6$bytes\xa4\x41\x41\x42="), "holds no base64"},
        {VALUE("\x81\xa6$bytes\xa4-v8="), "holds no base64"}, /* another alphabet */
        {VALUE("\x91\x81\xa1k\x91\x81\xa6$bytes\xa1?"), "holds no base64"},
        {VALUE("\x80"), NULL},
        {VALUE("\x81\xa6$bytes\xc4\x01?"), NULL}, /* bytes, in an object like any other */
        {VALUE("\x82\xa6$bytes\xa2!!\xa6$bytes\xa2!!"), "holds no base64"}, /* twice: the last one counts */
        {VALUE("\x82\xa6$bytes\xa4\x41\x41H/\xa6$bytes\xa2!!"), "holds no base64"},
        {VALUE("\x82\xa6$bytes\x92\x01\x80\xa6$bytes\xa2!!"), "holds no base64"},
        {VALUE("\x91\x83\xa6$bytes\x01\xa6$bytes\x02\xa6$bytes\xa2!!"), "holds no base64"},
        {VALUE("\x82\xa6$bytes\xa2!!\xa6$bytes\xa4\x41\x41H/"), NULL},
        {VALUE("\x82\xa6$bytes\xa2!!\xa6$bytes\x01"), NULL},
        {VALUE("\x83\xa6$bytes\xa2!!\xa1k\x01\xa6$bytes\xa2!!"), NULL}, /* not alone */
#undef VALUE
    };
    static const unsigned char task[] = "\x07\x01m\x02\x91\x05\x00\x01";
    static const wh_method one[] = {{"m", NULL, result_of_bytes}, {NULL, NULL, NULL}};
    for (size_t row = 0; row < sizeof rows / sizeof *rows; row++) {
        int supervisor;
        wh_link *link = link_to(&supervisor);
        wh_reader body = {task, task + sizeof task - 1};
        wh_value value = {(const unsigned char *)rows[row].value, rows[row].length};
        require(wh_is_value(value), "the test has values");
        link->is_worker = true;
        link->methods = one;
        require(wh_take_in(link, WH_K_TASK, body) == 0 && link->first, "the task came");
        int failed = wh_execute(link->first, &value);
        if (rows[row].said) refused(failed, link->fail_text, rows[row].said);
        else require(!failed, link->fail_text);
        close(supervisor);
        wh_close(link);
        wh_writer args = {0};
        wh_list(&args, 2);
        wh_nil(&args);
        wh_put(&args, value);
        is_sent_or_not(&args, value, rows[row].said, rows[row].said);
        wh_free(&args);
    }
}

static int result_of_levels(wh_task *task, void *state) {
    nest(wh_result(task), *(const int *)state, task->args.bytes[1] == 5);
    return 0;
}

/* As many levels as the supervisor takes, and no more. */
static void levels(void) {
    static const wh_method one[] = {{"m", NULL, result_of_levels}, {NULL, NULL, NULL}};
    for (int count = 61; count <= 66; count++)
        for (int in_maps = 0; in_maps < 2; in_maps++) {
            int supervisor;
            const char task[] = {7, 1, 'm', 2, '\x91', in_maps ? 5 : 6, 0, 1};
            wh_link *link = link_to(&supervisor);
            wh_reader body = {(const unsigned char *)task, (const unsigned char *)task + sizeof task};
            link->is_worker = true;
            link->methods = one;
            require(wh_take_in(link, WH_K_TASK, body) == 0 && link->first, "the task came");
            int failed = wh_execute(link->first, &count);
            if (count > 64) refused(failed, link->fail_text, "it is not one value of at most 64 levels");
            else require(!failed, link->fail_text);
            close(supervisor);
            wh_close(link);
            wh_writer value = {0}, args = {0};
            nest(&value, count, in_maps);
            wh_list(&args, 1); /* is a level too */
            nest(&args, count - 1, in_maps);
            is_sent_or_not(&args, wh_written(&value), count > 64 ? "are not one whole list of at most 64 levels" : NULL,
                           count > 64   ? "is not one value of at most 62 levels"
                           : count > 62 ? "cannot be sent: it nests more than 62 levels deep"
                                        : NULL);
            wh_free(&value);
            wh_free(&args);
        }
}

static void failures(void) {
    static const struct {
        wh_function function;
        unsigned kind;
        const char *said;
    } rows[] = {
        {no_places, WH_K_FAILED, "has no place for argument 1"},
        {broken_error, WH_K_FAILED, "no caf?: ??"},
        {no_error, WH_K_FAILED, "what it said of it is no text"},
        {broken_result, WH_K_FAILED, "cannot be sent: a text is no UTF-8"},
        {broken_value, WH_K_FAILED, "cannot be sent: a text is no UTF-8, in a value that was put"},
        {forgotten_failure, WH_K_FAILED, "no such row: 5"},
        {forgotten_misfit, WH_K_FAILED, "argument 1 is a whole number, and a text is needed"},
        {good_result, WH_K_DONE, "caf\xc3\xa9"},
    };
    static const unsigned char task[] = "\x07\x01m\x02\x91\x05\x00\x01";
    for (size_t row = 0; row < sizeof rows / sizeof *rows; row++) {
        wh_method one[] = {{"m", NULL, NULL}, {NULL, NULL, NULL}};
        int supervisor;
        wh_link *link = link_to(&supervisor);
        unsigned char said[400] = {0};
        wh_reader body = {task, task + sizeof task - 1};
        one[0].function = rows[row].function;
        link->is_worker = true;
        link->methods = one;
        require(wh_take_in(link, WH_K_TASK, body) == 0 && link->first, "the task came");
        wh_task *first = link->first;
        link->first = link->last = NULL;
        require(wh_settle(link, first, wh_execute(first, NULL)) == 1 && wh_flush(link) == 0, "it is settled");
        wh_free_task(first);
        ssize_t length = recv(supervisor, said, sizeof said - 1, 0);
        require(length > (ssize_t)WH_HEADER && said[1] == rows[row].kind && said[WH_HEADER] == 7, "it is settled as it ended");
        refused(-1, (char *)said + WH_HEADER + 2, rows[row].said);
        require(wh_utf8(said + WH_HEADER, (size_t)length - WH_HEADER) || rows[row].kind == WH_K_DONE, "an error's text is UTF-8");
        close(supervisor);
        wh_close(link);
    }
    wh_method no_function[] = {{"m", NULL, NULL}, {NULL, NULL, NULL}}, no_text[] = {{"\xff", NULL, echo}, {NULL, NULL, NULL}};
    int supervisor;
    wh_link *link = link_to(&supervisor);
    refused(wh_must_be_methods(link, NULL), wh_error(link), "the table of methods is NULL");
    refused(wh_must_be_methods(link, no_function), wh_error(link), "the method `m` has no function");
    refused(wh_must_be_methods(link, no_text), wh_error(link), "the name of method 1 in the table is no UTF-8");
    close(supervisor);
    wh_close(link);
}

/* Only what was under way when the supervisor went may have happened. */
static void the_supervisor_goes(void) {
    int supervisor;
    wh_receipt receipt;
    wh_signal signal;
    wh_link *link = link_to(&supervisor);
    pid_t child = fork();
    require(child >= 0, "there is a process");
    if (child == 0) { /* it hears the call, whole or not, and goes */
        char byte;
        _exit(recv(supervisor, &byte, 1, 0) == 1 ? 0 : 1);
    }
    close(supervisor);
    refused(wh_call(link, wh_name("w"), "m", NULL, &receipt), wh_error(link), "may or may not have happened");
    require(waitpid(child, NULL, 0) == child, "it has ended");
    for (int round = 0; round < 2; round++) {
        refused(wh_call(link, wh_name("w"), "m", NULL, &receipt), wh_error(link), "was not sent, and has not happened");
        refused(wh_kill(link, wh_name("w"), &receipt), wh_error(link), "was not sent, and has not happened");
        refused(wh_signal_new(link, NULL, 0, &signal), wh_error(link), "was not sent, and has not happened");
    }
    wh_close(link);
    /* It went while nothing was under way: that is found by writing, and what cannot be written has not happened. */
    link = link_to(&supervisor);
    close(supervisor);
    refused(wh_call(link, wh_name("w"), "m", NULL, &receipt), wh_error(link), "was not sent, and has not happened");
    wh_close(link);
    /* One that has no place for a connection says why, before or after it has gone. */
    for (int goes_first = 0; goes_first < 2; goes_first++) {
        static const char line[] = "{\"error\":{\"ref\":null,\"detail\":\"there are 16 connections\"}}\n";
        link = link_to(&supervisor);
        require(send(supervisor, line, sizeof line - 1, 0) == sizeof line - 1, "it says why");
        if (goes_first) close(supervisor);
        refused(wh_call(link, wh_name("w"), "m", NULL, &receipt), wh_error(link), "no place for this connection, and has read nothing: there are 16 connections");
        refused(wh_call(link, wh_name("w"), "m", NULL, &receipt), wh_error(link), "because the link is broken: the supervisor has no place");
        if (!goes_first) close(supervisor);
        wh_close(link);
    }
    /* A link that is broken says why each time, whatever other mistake was made meanwhile. */
    link = link_to(&supervisor);
    require(send(supervisor, "GET / HTTP/1.1\r\n", 16, 0) == 16, "it speaks another protocol");
    const char *none = NULL;
    refused(wh_call(link, wh_name("w"), "m", NULL, &receipt), wh_error(link), "is no header of a frame");
    refused(wh_call(link, wh_name("w"), none, NULL, &receipt), wh_error(link), "the name of the method is NULL");
    refused(wh_call(link, wh_name("w"), "m", NULL, &receipt), wh_error(link), "not sent, because the link is broken: ");
    refused(-1, wh_error(link), "is no header of a frame");
    close(supervisor);
    wh_close(link);
}

/* What tasks of a test know: the supervisor's end, how many have begun, and what it says then. */
struct stage {
    int supervisor, begun;
    unsigned then;
};

/* Calls somebody. Meanwhile comes a task, for which there is no memory, then the receipt and one more task. */
static int calls_without_memory(wh_task *task, void *state) {
    struct stage *stage = state;
    wh_receipt receipt;
    stage->begun++;
    says(stage->supervisor, WH_K_TASK, "\x02\x01" "b\x01\x90\x00\x00", 7);
    says(stage->supervisor, WH_K_RECEIPT, "\x00\x01\x00\x01w\x01\x01", 7);
    says(stage->supervisor, WH_K_TASK, "\x03\x01" "b\x01\x90\x00\x00", 7);
    require(shutdown(stage->supervisor, SHUT_WR) == 0, "the supervisor says no more");
    refuse_memory = true;
    refused(wh_call(task->link, wh_name("w"), "m", NULL, &receipt), wh_error(task->link), "there is no memory");
    return 0;
}

static int only_counts(wh_task *task, void *state) {
    struct stage *stage = state;
    (void)task;
    stage->begun++;
    return 0;
}

/* A task that is lost with the memory that there was not ends the link: who went on would settle it with the next. */
static void no_memory(void) {
    static const wh_method both[] = {{"a", NULL, calls_without_memory}, {"b", NULL, only_counts}, {NULL, NULL, NULL}};
    static const unsigned char welcome[] = "\x01\x01w\x01\x01";
    unsigned char said[400];
    struct stage stage = {0, 0, 0};
    wh_link *link = link_to(&stage.supervisor);
    require(wh_become_attached(link) == 0, "it has attached");
    says(stage.supervisor, WH_K_TASK, "\x01\x01" "a\x01\x90\x00\x00", 7);
    refused(wh_serve(link, both, &stage), wh_error(link), "there is no memory");
    require(stage.begun == 1, "no task is begun behind one that was lost");
    wh_close(link);
    ssize_t length = recv(stage.supervisor, said, sizeof said, MSG_WAITALL);
    static const unsigned char first_done[] = {WH_VERSION, WH_K_DONE_ALL, 0, 0, 1, 0, 0, 0, 1};
    require(length > (ssize_t)sizeof first_done, "the call and a settlement were said");
    require(!memcmp(said + length - sizeof first_done, first_done, sizeof first_done), "the last that is said is that the first is done");
    close(stage.supervisor);
    /* Nor does one serve who does not know its name. */
    link = link_to(&stage.supervisor);
    refuse_memory = true;
    wh_reader body = {welcome, welcome + sizeof welcome - 1};
    refused(wh_take_in(link, WH_K_WELCOME, body), wh_error(link), "there is no memory");
    require(link->broken, "the link is broken");
    close(stage.supervisor);
    wh_close(link);
}

/* Calls somebody; behind the receipt comes what the stage says. */
static int calls_with_more_behind(wh_task *task, void *state) {
    struct stage *stage = state;
    wh_receipt receipt;
    stage->begun++;
    says(stage->supervisor, WH_K_TASK, "\x02\x01" "b\x01\x90\x00\x00", 7);
    says(stage->supervisor, WH_K_RECEIPT, "\x00\x01\x00\x01w\x01\x01", 7);
    says(stage->supervisor, stage->then, "\x02", stage->then == WH_K_CANCELLED);
    require(shutdown(stage->supervisor, SHUT_WR) == 0, "the supervisor says no more");
    require(wh_call(task->link, wh_name("w"), "m", NULL, &receipt) == 0, wh_error(task->link));
    return 0;
}

/* The supervisor goes. */
static int is_the_last(wh_task *task, void *state) {
    struct stage *stage = state;
    (void)task;
    require(shutdown(stage->supervisor, SHUT_WR) == 0, "the supervisor says no more");
    return 0;
}

/* Where the kill, or the cancel, of a task stands. */
enum { BEHIND_A_CALL, IN_A_METHOD, UNREAD };

/* What has come already, a kill or a cancel, holds for the task that stands before it. */
static void all_that_has_come(void) {
    static const wh_method all[] = {
        {"a", NULL, calls_with_more_behind}, {"b", NULL, only_counts}, {"c", NULL, is_the_last}, {NULL, NULL, NULL}};
    static const unsigned then[] = {WH_K_END, WH_K_CANCELLED};
    for (int where = BEHIND_A_CALL; where <= UNREAD; where++)
        for (size_t at = 0; at < 2; at++) {
            struct stage stage = {0, 0, then[at]};
            wh_receipt receipt;
            unsigned char said[400];
            wh_link *link = link_to(&stage.supervisor);
            require(wh_become_attached(link) == 0, "it has attached");
            if (where == IN_A_METHOD) says(stage.supervisor, WH_K_TASK, "\x01\x01" "a\x01\x90\x00\x00", 7);
            else { /* it calls before it serves: the receipt comes first */
                says(stage.supervisor, WH_K_RECEIPT, "\x00\x01\x00\x01w\x01\x01", 7);
                says(stage.supervisor, WH_K_TASK, "\x02\x01" "b\x01\x90\x00\x00", 7);
                if (where == UNREAD) require(wh_call(link, wh_name("w"), "m", NULL, &receipt) == 0, wh_error(link));
                says(stage.supervisor, stage.then, "\x02", stage.then == WH_K_CANCELLED);
                says(stage.supervisor, WH_K_TASK, "\x03\x01" "c\x01\x90\x00\x00", 7);
                if (where != UNREAD) require(wh_call(link, wh_name("w"), "m", NULL, &receipt) == 0, wh_error(link));
            }
            int failed = wh_serve(link, all, &stage);
            require(failed == (stage.then == WH_K_END ? 0 : -1), "who was told to end has ended well");
            if (!failed) {
                refused(wh_serve(link, all, &stage), wh_error(link), "it has served to its end");
                refused(wh_leave(link, false), wh_error(link), "it has served to its end");
            }
            require(stage.begun == (where == IN_A_METHOD), "the task that was killed, or cancelled, is not begun");
            wh_close(link);
            ssize_t length = recv(stage.supervisor, said, sizeof said, MSG_WAITALL);
            static const unsigned char dropped[] = {WH_VERSION, WH_K_DROPPED, 0, 0, 1, 0, 0, 0, 2};
            require(length > (ssize_t)sizeof dropped, "the call was said");
            bool says_so = memmem(said, (size_t)length, dropped, sizeof dropped);
            require(says_so == (stage.then == WH_K_CANCELLED), "what was cancelled is said to be dropped");
            close(stage.supervisor);
        }
}

static int listener;
static volatile sig_atomic_t alarms;

/* At the third one there is a place at the supervisor. */
static void on_alarm(int number) {
    int before = errno;
    (void)number;
    if (++alarms == 3) accept(listener, NULL, NULL);
    errno = before;
}

/* A handler that runs while there is no place yet does not end the attempt. */
static void connecting_is_interrupted(void) {
    char directory[] = "/tmp/workhall-c-XXXXXX", error[300] = "";
    struct sockaddr_un address = {AF_UNIX, ""};
    struct itimerval often = {{0, 20000}, {0, 20000}}, never = {{0, 0}, {0, 0}};
    struct sigaction action;
    require(mkdtemp(directory) != NULL, "there is a directory");
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", directory);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    require(bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 0) == 0, "somebody listens");
    memset(&action, 0, sizeof action);
    action.sa_handler = on_alarm;
    require(sigaction(SIGALRM, &action, NULL) == 0, "there is a handler");
    wh_link *first = wh_connect(address.sun_path, error, sizeof error);
    require(first != NULL, "the first one has the only place");
    require(setitimer(ITIMER_REAL, &often, NULL) == 0, "there are alarms");
    wh_link *second = wh_connect(address.sun_path, error, sizeof error);
    require(setitimer(ITIMER_REAL, &never, NULL) == 0, "there are no more alarms");
    unlink(address.sun_path);
    rmdir(directory);
    require(second != NULL, error);
    require(alarms >= 3, "it has waited for its place");
    wh_close(first);
    wh_close(second);
    close(listener);
}

int main(int argc, char **argv) {
    FILE *file = argc == 2 ? fopen(argv[1], "r") : NULL;
    require(file != NULL, "usage: test protocol/recorded/frames.txt");
    recorded(file);
    fclose(file);
    random_values();
    there_and_back();
    wrong_arguments();
    number_0();
    null_pointers();
    failures();
    values_that_json_cannot_have();
    levels();
    the_supervisor_goes();
    no_memory();
    all_that_has_come();
    connecting_is_interrupted();
    require(frames > 10000 && tasks > 500 && refusals > 500, "the frames were found");
    printf("%lu frames, %lu tasks, %lu not understood\n", frames, tasks, refusals);
    return 0;
}
