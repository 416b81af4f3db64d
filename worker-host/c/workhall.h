/* Write a Workhall worker or caller in C: this one file, C99, GNU/Linux, nothing else.
 *
 * In one file of your program write
 *
 *     #define WORKHALL_IMPLEMENTATION
 *     #include "workhall.h"
 *
 * before all other #includes; in the others only the second line. A worker is a table of methods and wh_run(); see
 * example.c. Functions that can fail return 0 when all is well and -1 when not; why is then in wh_error(). It speaks the
 * binary encoding of protocol/PROTOCOL.md. One thread may use a link at a time. Texts are UTF-8 and end with a 0 byte,
 * which their length does not count; they may hold others.
 *
 * A text that is no UTF-8, and a null pointer where something is needed, are errors that say which it is, and nothing was
 * sent. Where a function hands something back by a pointer, null means that it is not wanted, but for outcomes, arguments
 * and new signals: who does not want these has forgotten something.
 */
#ifndef WORKHALL_H
#define WORKHALL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- values: what arguments and results are made of ---------------------------------------------------------------- */

/* One value, whole, in MessagePack. It points into memory of the task or link that it is from, which says until when.
 *
 * Any peer may speak JSON. So what is sent, as arguments, as a result or as a value of a signal, is only what it can read and send back:
 * - A key of a map is a text, or a finite number, true or false, which become texts. It is no nil, bytes, list, map or extension.
 * - There is no extension anywhere.
 * - A map without a key but "$bytes" stands for bytes: where its value is a text (of a key that is there twice: the last), that is base64
 *   of the standard alphabet, with its padding. wh_bytes() needs none of that.
 * - Arguments and results have at most 64 levels of lists and maps, of which the list of the arguments is one; a value of a signal has 62.
 * Else a call, or wh_signal_set(), is an error that says which, and nothing was sent; a result fails its task. A double that is NaN or
 * infinite, and no key, is null in JSON. */
typedef struct {
    const unsigned char *bytes;
    size_t length;
} wh_value;

typedef enum { WH_NIL, WH_BOOL, WH_INT, WH_UINT, WH_DOUBLE, WH_TEXT, WH_BYTES, WH_LIST, WH_MAP, WH_EXTENSION } wh_type;

/* What stands next in a value. Of a list its items come next, of a map key, value, key, value… */
typedef struct {
    wh_type type;
    bool boolean;              /* WH_BOOL */
    int64_t integer;           /* WH_INT: below 0 */
    uint64_t whole;            /* WH_UINT: from 0 */
    double real;               /* WH_DOUBLE */
    const unsigned char *data; /* WH_TEXT, WH_BYTES, WH_EXTENSION: no 0 byte behind it */
    size_t length;             /* of data, in bytes */
    uint32_t count;            /* WH_LIST: items; WH_MAP: pairs */
} wh_item;

/* A place in a value: wh_read(value), then wh_next() until it returns false. */
typedef struct {
    const unsigned char *at, *end;
} wh_reader;

wh_reader wh_read(wh_value value);
/* The next item, or the head of a list or a map. False at the end, and where the bytes are no MessagePack. */
bool wh_next(wh_reader *reader, wh_item *item);
/* The next value, whole, with all that is in it. */
bool wh_next_value(wh_reader *reader, wh_value *value);
/* Whether it is exactly one value, well formed and at most 64 levels deep. What a method is handed always is. */
bool wh_is_value(wh_value value);
/* The value of a text key in a map. */
bool wh_find(wh_value map, const char *key, wh_value *found);

/* Memory that values are written into. Begin with {0}; wh_free() gives it back. */
typedef struct {
    unsigned char *bytes;
    size_t length, room;
    bool failed;         /* there was no memory for it */
    const char *mistake; /* null, or what was written and is no value; who is handed the writer says so */
} wh_writer;

void wh_nil(wh_writer *out);
void wh_bool(wh_writer *out, bool value);
void wh_int(wh_writer *out, int64_t value);
void wh_uint(wh_writer *out, uint64_t value);
void wh_double(wh_writer *out, double value);
void wh_text(wh_writer *out, const char *text);
void wh_text_of(wh_writer *out, const void *text, size_t length);
void wh_bytes(wh_writer *out, const void *bytes, size_t length);
void wh_list(wh_writer *out, uint32_t items); /* the items come next */
void wh_map(wh_writer *out, uint32_t pairs);  /* key, value, key, value… come next */
void wh_put(wh_writer *out, wh_value value);  /* a value as it is */
wh_value wh_written(const wh_writer *out);    /* until something more is written; of no bytes if that failed */
void wh_free(wh_writer *out);

/* ---- a link: the connection to the supervisor, of a worker or of a client ------------------------------------------- */

typedef struct wh_link wh_link;

/* Why the last function that failed did. Until the next one of this link. Of a request it says whether it was sent: only then it
 * may have happened. */
const char *wh_error(const wh_link *link);

/* Whom a request is for: wh_name("mailer"), wh_number(7), or wh_self(), which only a kill knows. No worker has the number 0. */
typedef struct {
    const char *name; /* null: by number */
    uint64_t number;
} wh_address;
wh_address wh_name(const char *name);
wh_address wh_number(uint64_t number);
wh_address wh_self(void);

typedef enum { WH_ACCEPTED, WH_IGNORED, WH_REFUSED, WH_KILLED, WH_ANSWERED } wh_receipt_kind;

/* What became of a request. What it points to lives until the next request of this link. */
typedef struct {
    wh_receipt_kind kind;
    const char *reason; /* WH_IGNORED, WH_REFUSED: as the protocol writes it, `no_worker` or `mailbox_full` */
    const char *detail; /* WH_REFUSED: for people */
    const char *worker; /* WH_ACCEPTED: the worker's name, */
    uint64_t number;    /*   its number, */
    uint64_t message;   /*   and the message's id */
    uint64_t discarded; /* WH_KILLED */
} wh_receipt;

typedef enum { WH_DONE, WH_FAILED, WH_DISCARDED, WH_EXPIRED, WH_DEAD, WH_TRIGGERED, WH_TIMED_OUT, WH_LOST, WH_OTHER } wh_outcome_kind;

/* What came of it in the end. What it points to lives until the next request of this link. */
typedef struct {
    wh_outcome_kind kind;
    wh_value value;     /* WH_DONE: the result; WH_TRIGGERED: the values, a map */
    const char *error;  /* WH_FAILED */
    const char *reason; /* WH_DEAD: as the protocol writes it, `crashed` */
    bool may_have_run;  /* WH_DISCARDED, WH_EXPIRED, WH_DEAD */
} wh_outcome;

/* More conditions of a call; {0} is none. Times are in milliseconds. */
typedef struct {
    bool existing;       /* only if the worker exists already */
    bool expires;        /* it expires after expires_ms, unless it was begun by then */
    uint64_t expires_ms;
    uint64_t in_ms;      /* it enters the mailbox after so long */
} wh_conditions;

/* Posts a message. `args` is null for none, or one list that can be sent (see wh_value): wh_list(&w, 2), then two values. It does
 * not wait for the execution, only for the receipt. */
int wh_call(wh_link *link, wh_address worker, const char *method, const wh_writer *args, wh_receipt *receipt);
int wh_call_if(wh_link *link, wh_address worker, const char *method, const wh_writer *args, wh_conditions conditions,
               wh_receipt *receipt);
/* The same, and waits for the outcome; only if receipt->kind is WH_ACCEPTED there is one. A worker that so waits for
 * itself waits for ever: it executes one task at a time. */
int wh_call_and_wait(wh_link *link, wh_address worker, const char *method, const wh_writer *args, wh_receipt *receipt,
                     wh_outcome *outcome);
/* Kills a worker: what is pending is ignored, and it ends after its current task. */
int wh_kill(wh_link *link, wh_address worker, wh_receipt *receipt);

/* A signal: an id that goes through arguments and results. */
typedef struct {
    char id[33];
} wh_signal;
/* Makes one; `description` may be null; keep_ms 0: it is kept as long as somebody holds it. */
int wh_signal_new(wh_link *link, const char *description, uint64_t keep_ms, wh_signal *signal);
void wh_signal_put(wh_writer *out, wh_signal signal);
bool wh_signal_of(wh_value value, wh_signal *signal);
/* Writes one value that can be sent (see wh_value), before the trigger. */
int wh_signal_set(wh_link *link, wh_signal signal, const char *key, wh_value value);
/* Triggers it; *first says whether nobody had before. */
int wh_signal_trigger(wh_link *link, wh_signal signal, bool *first);
/* Waits for so many seconds, 0 only looks, below 0 is for ever. The outcome is WH_TRIGGERED, WH_TIMED_OUT, or says why it is
 * not going to come. */
int wh_signal_wait(wh_link *link, wh_signal signal, double seconds, wh_outcome *outcome);

/* ---- a client ------------------------------------------------------------------------------------------------------- */

/* Connects to a supervisor; null for `path`: WORKHALL_SOCKET, or where it is by default. Null if there is none: why is written
 * into `error`, which has room for `room` bytes. */
wh_link *wh_connect(const char *path, char *error, size_t room);
void wh_close(wh_link *link);

/* ---- a worker ------------------------------------------------------------------------------------------------------- */

typedef struct wh_task wh_task;

/* Executes one task: 0 if it is done, or what wh_fail() returned. After a wh_fail(), or a wh_arg_…() that did not fit, it has
 * failed, also with 0. `state` is what wh_run() was given. */
typedef int (*wh_function)(wh_task *task, void *state);

typedef struct {
    const char *name;
    const char *parameters; /* for people, "worker, method": how many there are is counted; null: any number of them */
    wh_function function;
} wh_method;

/* Executes tasks until the supervisor asks for the end or is gone. Returns the exit status for main(), after it has written on
 * stderr what was wrong, if anything was. The table ends with a method whose name is null. `window` is how many tasks may be
 * sent ahead; 0 means 256. */
int wh_run(const wh_method *methods, void *state, uint32_t window);

/* ---- an attached worker: a program that somebody else has started takes a name (rule P2) ------------------------------ */

/* Connects as wh_connect() does, and takes the name: from here on calls to it wait for wh_serve(). Null if that cannot be had;
 * `error` then says why, of a name that is taken with the word `name_taken`. The link is good for calls as any other. */
wh_link *wh_attach(const char *path, const char *name, char *error, size_t room);
/* Executes tasks, one at a time and in order, until this worker has left or the supervisor stops: 0, and wh_close() is due, for the
 * name is gone with it. -1 if the supervisor is gone, or said what is not understood. A kill only empties the mailbox. The table as for wh_run(). */
int wh_serve(wh_link *link, const wh_method *methods, void *state);
/* Gives the name back: wh_serve() returns after the current task; with `drain` what is pending is executed before that, else it is
 * dead, *abandoned*. */
int wh_leave(wh_link *link, bool drain);
/* The same, for a signal handler or another thread: it only notes that, and wh_serve(), or whatever waits for the supervisor, then
 * does it. Not behind wh_close(). */
void wh_leave_soon(wh_link *link, bool drain);

/* For use in a method. */
wh_link *wh_link_of(wh_task *task);
const char *wh_worker_name(const wh_task *task);
uint64_t wh_worker_number(const wh_task *task);
uint64_t wh_generation(const wh_task *task);
uint64_t wh_message(const wh_task *task); /* the message's id */
const char *wh_method_of(const wh_task *task);
/* Who called: null for a client, which cannot be called back. */
const char *wh_sender(const wh_task *task, uint64_t *number);
/* Whether this worker was killed: a long task may look here and end early. */
bool wh_end_requested(wh_task *task);
/* Whether nobody wants this task any more. */
bool wh_is_cancelled(wh_task *task);
/* Calls back who sent the task, by its number. */
int wh_reply(wh_task *task, const char *method, const wh_writer *args, wh_receipt *receipt);

/* The arguments, from 0. What does not fit fails the task: `if (wh_arg_int(task, 0, &ms)) return -1;` */
uint32_t wh_arg_count(const wh_task *task);
int wh_arg(wh_task *task, uint32_t index, wh_value *value);
int wh_arg_bool(wh_task *task, uint32_t index, bool *value);
int wh_arg_int(wh_task *task, uint32_t index, int64_t *value);
int wh_arg_uint(wh_task *task, uint32_t index, uint64_t *value);
int wh_arg_double(wh_task *task, uint32_t index, double *value);
int wh_arg_text(wh_task *task, uint32_t index, const char **text, size_t *length); /* length may be null: no 0 bytes then */
int wh_arg_bytes(wh_task *task, uint32_t index, const unsigned char **bytes, size_t *length);
int wh_arg_address(wh_task *task, uint32_t index, wh_address *worker);
int wh_arg_signal(wh_task *task, uint32_t index, wh_signal *signal);

/* Where the result is written, one value that can be sent (see wh_value); nothing written is nil. Any other fails the task. */
wh_writer *wh_result(wh_task *task);
/* The task has failed, and this is why: `return wh_fail(task, "no such row: %s", key);` It stays so, whatever the method returns. */
#ifdef __GNUC__
__attribute__((format(printf, 2, 3)))
#endif
int wh_fail(wh_task *task, const char *format, ...);

#endif /* WORKHALL_H */

#ifdef WORKHALL_IMPLEMENTATION
#ifndef WORKHALL_IMPLEMENTED
#define WORKHALL_IMPLEMENTED

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define WH_VERSION 0xb1u
#define WH_HEADER 8u
#define WH_FRAME_MAX (16u << 20)
#define WH_LEVELS_MAX 64
/* The values of a signal stand in the values of a report. */
#define WH_SIGNAL_LEVELS_MAX 62
#define WH_READ_BYTES (64u << 10)
/* Settlements are collected up to so many bytes, and no longer than so many nanoseconds before the next task. */
#define WH_WRITE_BYTES (32u << 10)
#define WH_SAY_WITHIN 1000000
/* A larger result is sent even if nobody waits: should it be too large for the wire, its method has failed. */
#define WH_UNHEARD_MAX (32u << 10)
#define WH_WINDOW 256u
#define WH_PAGE_BYTES 4096
enum { WH_BEGUN = 0, WH_FINISHED = 1, WH_ATTACHED = 2, WH_STOP = 8, WH_CANCELS = 9 }; /* in words of 8 bytes */
enum {
    WH_K_READY = 1, WH_K_DONE = 2, WH_K_FAILED = 3, WH_K_CALL = 4, WH_K_KILL = 5, WH_K_DONE_ALL = 15, WH_K_SIGNAL_NEW = 21,
    WH_K_SIGNAL_SET = 22, WH_K_SIGNAL_TRIGGER = 23, WH_K_SIGNAL_WAIT = 24, WH_K_ATTACH = 29, WH_K_LEAVE = 30,
    WH_K_DROPPED = 31, WH_K_WELCOME = 65, WH_K_TASK = 66, WH_K_END = 67, WH_K_RECEIPT = 68, WH_K_OUTCOME = 69,
    WH_K_ERROR = 70, WH_K_CANCELLED = 72
};

/* ---- texts ---------------------------------------------------------------------------------------------------------- */

/* The length of the well formed UTF-8 sequence here; 0 if there is none. */
static size_t wh_utf8_at(const unsigned char *at, const unsigned char *end) {
    unsigned first = *at;
    size_t length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    if (!length || (size_t)(end - at) < length) return 0;
    for (size_t i = 1; i < length; i++)
        if ((at[i] & 0xc0) != 0x80) return 0;
    bool overlong = (first == 0xe0 && at[1] < 0xa0) || (first == 0xf0 && at[1] < 0x90);
    bool beyond = (first == 0xed && at[1] >= 0xa0) || (first == 0xf4 && at[1] >= 0x90);
    return overlong || beyond ? 0 : length;
}

static bool wh_utf8(const unsigned char *at, size_t length) {
    const unsigned char *end = at + length;
    while (at < end) {
        size_t step = wh_utf8_at(at, end);
        if (!step) return false;
        at += step;
    }
    return true;
}

/* What is wrong with a text of the caller's, for people; false if it can be sent. */
static bool wh_text_fault(const char *what, const char *text, char *fault, size_t room) {
    if (!text) {
        snprintf(fault, room, "%s is NULL", what);
        return true;
    }
    const unsigned char *start = (const unsigned char *)text, *at = start, *end = start + strlen(text);
    while (at < end) {
        size_t step = wh_utf8_at(at, end);
        if (!step) {
            snprintf(fault, room, "%s is no UTF-8: byte %zu is 0x%02x", what, (size_t)(at - start), *at);
            return true;
        }
        at += step;
    }
    return false;
}

/* ---- writing -------------------------------------------------------------------------------------------------------- */

static bool wh_room(wh_writer *out, size_t more) {
    if (!out) return false;
    if (out->failed || more > SIZE_MAX / 4 - out->length) {
        out->failed = true;
        return false;
    }
    if (out->length + more > out->room) {
        size_t room = out->room < 256 ? 256 : out->room;
        while (room < out->length + more) room *= 2;
        unsigned char *bytes = realloc(out->bytes, room);
        if (!bytes) {
            out->failed = true;
            return false;
        }
        out->bytes = bytes;
        out->room = room;
    }
    return true;
}

static void wh_append(wh_writer *out, const void *bytes, size_t length) {
    if (length && wh_room(out, length)) {
        memcpy(out->bytes + out->length, bytes, length);
        out->length += length;
    }
}

/* The first one is said. */
static void wh_mistake(wh_writer *out, const char *mistake) {
    if (out && !out->mistake) out->mistake = mistake;
}

static void wh_byte(wh_writer *out, unsigned byte) {
    unsigned char one = (unsigned char)byte;
    wh_append(out, &one, 1);
}

/* A head byte and an integer behind it, big endian, as MessagePack has them. */
static void wh_head(wh_writer *out, unsigned head, uint64_t value, int bytes) {
    wh_byte(out, head);
    while (bytes--) wh_byte(out, (unsigned)(value >> (8 * bytes)) & 0xff);
}

void wh_nil(wh_writer *out) { wh_byte(out, 0xc0); }
void wh_bool(wh_writer *out, bool value) { wh_byte(out, value ? 0xc3 : 0xc2); }

void wh_uint(wh_writer *out, uint64_t value) {
    if (value < 128) wh_byte(out, (unsigned)value);
    else if (value <= 0xff) wh_head(out, 0xcc, value, 1);
    else if (value <= 0xffff) wh_head(out, 0xcd, value, 2);
    else if (value <= 0xffffffff) wh_head(out, 0xce, value, 4);
    else wh_head(out, 0xcf, value, 8);
}

void wh_int(wh_writer *out, int64_t value) {
    if (value >= 0) wh_uint(out, (uint64_t)value);
    else if (value >= -32) wh_byte(out, (unsigned)(value + 256));
    else if (value >= INT8_MIN) wh_head(out, 0xd0, (uint64_t)value, 1);
    else if (value >= INT16_MIN) wh_head(out, 0xd1, (uint64_t)value, 2);
    else if (value >= INT32_MIN) wh_head(out, 0xd2, (uint64_t)value, 4);
    else wh_head(out, 0xd3, (uint64_t)value, 8);
}

void wh_double(wh_writer *out, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    wh_head(out, 0xcb, bits, 8);
}

/* The head of something with a length: up to `few` in one byte, then with 1 (if there is such a head), 2 or 4 bytes. */
static void wh_sized(wh_writer *out, size_t length, size_t few, unsigned few_head, unsigned head8, unsigned head16) {
    if (length > UINT32_MAX) wh_mistake(out, "a text, or bytes, of 4 GiB and more");
    else if (length < few) wh_byte(out, few_head | (unsigned)length);
    else if (head8 && length <= 0xff) wh_head(out, head8, length, 1);
    else if (length <= 0xffff) wh_head(out, head16, length, 2);
    else wh_head(out, head16 + 1, length, 4);
}

void wh_text_of(wh_writer *out, const void *text, size_t length) {
    if (length && !text) wh_mistake(out, "a text is NULL");
    else if (length && !wh_utf8(text, length)) wh_mistake(out, "a text is no UTF-8");
    if (!text) length = 0;
    wh_sized(out, length, 32, 0xa0, 0xd9, 0xda);
    wh_append(out, text, length);
}

void wh_text(wh_writer *out, const char *text) {
    if (text) wh_text_of(out, text, strlen(text));
    else wh_mistake(out, "a text is NULL");
}

void wh_bytes(wh_writer *out, const void *bytes, size_t length) {
    if (length && !bytes) wh_mistake(out, "bytes are NULL");
    if (!bytes) length = 0;
    wh_sized(out, length, 0, 0, 0xc4, 0xc5);
    wh_append(out, bytes, length);
}

void wh_list(wh_writer *out, uint32_t items) { wh_sized(out, items, 16, 0x90, 0, 0xdc); }
void wh_map(wh_writer *out, uint32_t pairs) { wh_sized(out, pairs, 16, 0x80, 0, 0xde); }

static bool wh_has_utf8_only(wh_value value) {
    wh_reader reader = wh_read(value);
    wh_item item;
    while (wh_next(&reader, &item))
        if (item.type == WH_TEXT && !wh_utf8(item.data, item.length)) return false;
    return true;
}

void wh_put(wh_writer *out, wh_value value) {
    if (!value.bytes || !value.length) wh_mistake(out, "a value is none: it has no bytes");
    else if (!wh_has_utf8_only(value)) wh_mistake(out, "a text is no UTF-8, in a value that was put");
    else wh_append(out, value.bytes, value.length);
}

wh_value wh_written(const wh_writer *out) {
    wh_value none = {NULL, 0};
    if (!out || out->failed || out->mistake) return none;
    wh_value value = {out->bytes, out->length};
    return value;
}

void wh_free(wh_writer *out) {
    if (!out) return;
    free(out->bytes);
    memset(out, 0, sizeof *out);
}

/* ---- reading -------------------------------------------------------------------------------------------------------- */

wh_reader wh_read(wh_value value) {
    wh_reader reader = {value.bytes, value.bytes ? value.bytes + value.length : NULL};
    return reader;
}

static bool wh_big_endian(wh_reader *reader, int bytes, uint64_t *value) {
    if (reader->end - reader->at < bytes) return false;
    *value = 0;
    while (bytes--) *value = *value << 8 | *reader->at++;
    return true;
}

static bool wh_data(wh_reader *reader, uint64_t length, wh_item *item) {
    if ((uint64_t)(reader->end - reader->at) < length) return false;
    item->data = reader->at;
    item->length = (size_t)length;
    reader->at += length;
    return true;
}

bool wh_next(wh_reader *reader, wh_item *item) {
    if (!reader || !item) return false;
    memset(item, 0, sizeof *item);
    if (reader->at >= reader->end) return false;
    unsigned head = *reader->at++;
    uint64_t n = 0;
    if (head < 0x80 || head >= 0xe0) {
        item->type = head < 0x80 ? WH_UINT : WH_INT;
        item->whole = head < 0x80 ? head : 0;
        item->integer = head < 0x80 ? 0 : (int64_t)head - 256;
        return true;
    }
    if (head < 0xa0) {
        item->type = head < 0x90 ? WH_MAP : WH_LIST;
        item->count = head & 0x0f;
        return true;
    }
    if (head < 0xc0) {
        item->type = WH_TEXT;
        return wh_data(reader, head & 0x1f, item);
    }
    switch (head) {
    case 0xc0:
        item->type = WH_NIL;
        return true;
    case 0xc2:
    case 0xc3:
        item->type = WH_BOOL;
        item->boolean = head == 0xc3;
        return true;
    case 0xc4:
    case 0xc5:
    case 0xc6:
        item->type = WH_BYTES;
        return wh_big_endian(reader, 1 << (head - 0xc4), &n) && wh_data(reader, n, item);
    case 0xc7:
    case 0xc8:
    case 0xc9: /* the type of an extension stands before its data */
        item->type = WH_EXTENSION;
        return wh_big_endian(reader, 1 << (head - 0xc7), &n) && wh_data(reader, n + 1, item);
    case 0xca: {
        float single;
        if (!wh_big_endian(reader, 4, &n)) return false;
        uint32_t bits = (uint32_t)n;
        memcpy(&single, &bits, sizeof single);
        item->type = WH_DOUBLE;
        item->real = single;
        return true;
    }
    case 0xcb:
        if (!wh_big_endian(reader, 8, &n)) return false;
        item->type = WH_DOUBLE;
        memcpy(&item->real, &n, sizeof n);
        return true;
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
        item->type = WH_UINT;
        return wh_big_endian(reader, 1 << (head - 0xcc), &item->whole);
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3: {
        int bytes = 1 << (head - 0xd0);
        if (!wh_big_endian(reader, bytes, &n)) return false;
        if (bytes < 8 && n >> (8 * bytes - 1)) n |= UINT64_MAX << (8 * bytes);
        item->type = n >> 63 ? WH_INT : WH_UINT;
        if (n >> 63) memcpy(&item->integer, &n, sizeof n);
        else item->whole = n;
        return true;
    }
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8:
        item->type = WH_EXTENSION;
        return wh_data(reader, (UINT64_C(1) << (head - 0xd4)) + 1, item);
    case 0xd9:
    case 0xda:
    case 0xdb:
        item->type = WH_TEXT;
        return wh_big_endian(reader, 1 << (head - 0xd9), &n) && wh_data(reader, n, item);
    case 0xdc:
    case 0xdd:
    case 0xde:
    case 0xdf:
        item->type = head < 0xde ? WH_LIST : WH_MAP;
        if (!wh_big_endian(reader, head & 1 ? 4 : 2, &n)) return false;
        item->count = (uint32_t)n;
        return true;
    default: /* 0xc1 */
        return false;
    }
}

bool wh_next_value(wh_reader *reader, wh_value *value) {
    uint64_t left[WH_LEVELS_MAX + 1]; /* values still to come, level by level */
    int level = 0;
    wh_item item;
    if (!reader || !value) return false;
    value->bytes = reader->at;
    left[0] = 1;
    for (;;) {
        while (level >= 0 && left[level] == 0) level--;
        if (level < 0) break;
        left[level]--;
        if (!wh_next(reader, &item)) return false;
        if (item.type == WH_LIST || item.type == WH_MAP) {
            if (level == WH_LEVELS_MAX) return false;
            left[++level] = item.type == WH_MAP ? 2 * (uint64_t)item.count : item.count;
        }
    }
    value->length = (size_t)(reader->at - value->bytes);
    return true;
}

bool wh_is_value(wh_value value) {
    wh_reader reader = wh_read(value);
    wh_value first;
    return value.length && wh_next_value(&reader, &first) && reader.at == reader.end;
}

bool wh_find(wh_value map, const char *key, wh_value *found) {
    wh_reader reader = wh_read(map);
    wh_item head, name;
    wh_value unused;
    if (!found) found = &unused;
    if (!key || !wh_next(&reader, &head) || head.type != WH_MAP) return false;
    for (uint32_t pair = 0; pair < head.count; pair++) {
        wh_value at;
        if (!wh_next_value(&reader, &at)) return false;
        wh_reader inside = wh_read(at);
        bool is_it = wh_next(&inside, &name) && name.type == WH_TEXT && name.length == strlen(key) &&
                     memcmp(name.data, key, name.length) == 0;
        if (!wh_next_value(&reader, found)) return false;
        if (is_it) return true;
    }
    return false;
}

/* ---- what a peer that speaks JSON can have --------------------------------------------------------------------------- */

static const char *wh_type_name(wh_type type) {
    static const char *const names[] = {"nil", "true or false", "a whole number below 0", "a whole number", "a decimal number",
                                        "a text", "bytes", "a list", "a map", "an extension"};
    return names[type];
}

/* Standard alphabet, with its padding and without a bit too much: as the supervisor reads it. */
static bool wh_is_base64(const unsigned char *text, size_t length) {
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t padding = 0;
    const char *last = alphabet;
    if (length % 4) return false;
    while (padding < 2 && padding < length && text[length - 1 - padding] == '=') padding++;
    for (size_t at = 0; at < length - padding; at++)
        if (!text[at] || !(last = strchr(alphabet, text[at]))) return false;
    unsigned unused = padding == 2 ? 0x0f : padding == 1 ? 0x03 : 0;
    return !((unsigned)(last - alphabet) & unused);
}

/* Whether a map of so many pairs, whose first key is read next, stands for bytes and holds none. It has no key but `$bytes`; of a
 * key that is there twice the last value counts. */
static bool wh_is_no_bytes(wh_reader pairs, uint32_t count) {
    wh_item key, text = {0};
    wh_value unused;
    for (uint32_t left = count; left; left--) {
        if (!wh_next(&pairs, &key) || key.type != WH_TEXT || key.length != 6 || memcmp(key.data, "$bytes", 6)) return false;
        if (left == 1 ? !wh_next(&pairs, &text) : !wh_next_value(&pairs, &unused)) return false;
    }
    return text.type == WH_TEXT && !wh_is_base64(text.data, text.length);
}

/* By its bits: a compiler that was told that all numbers are finite would not compare. */
static bool wh_is_finite(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits >> 52 & 0x7ff) != 0x7ff;
}

/* What is wrong with a value, for people, if a peer that speaks JSON could not read it, or not send it back, or if it has more levels
 * than so many (at most WH_LEVELS_MAX); false if all is well. */
static bool wh_json_fault(wh_value value, int levels, char *fault, size_t room) {
    uint64_t left[WH_LEVELS_MAX + 1]; /* as wh_next_value() counts */
    bool is_map[WH_LEVELS_MAX + 1];
    int level = 0;
    wh_reader reader = wh_read(value);
    wh_item item;
    left[0] = 1;
    is_map[0] = false;
    while (wh_next(&reader, &item)) {
        /* Numbers, and true and false, become texts. */
        bool is_no_key = item.type == WH_NIL || item.type >= WH_BYTES, is_odd = item.type == WH_DOUBLE && !wh_is_finite(item.real);
        if (is_map[level] && left[level] % 2 == 0 && (is_no_key || is_odd)) {
            snprintf(fault, room, "a key of a map in it is %s, and a text, a finite number, true or false is needed",
                     is_odd ? "NaN or infinite" : wh_type_name(item.type));
            return true;
        }
        if (item.type == WH_EXTENSION) {
            snprintf(fault, room, "JSON has nothing for an extension of MessagePack");
            return true;
        }
        if (item.type == WH_MAP && wh_is_no_bytes(reader, item.count)) {
            snprintf(fault, room, "a map in it is {\"$bytes\": …}, which stands for bytes, and holds no base64: write it by wh_bytes()");
            return true;
        }
        left[level]--;
        if (item.type == WH_LIST || item.type == WH_MAP) {
            if (level == levels) {
                snprintf(fault, room, "it nests more than %d levels deep", levels);
                return true;
            }
            left[++level] = item.type == WH_MAP ? 2 * (uint64_t)item.count : item.count;
            is_map[level] = item.type == WH_MAP;
        }
        while (level > 0 && left[level] == 0) level--;
    }
    return false;
}

/* ---- the body of a frame -------------------------------------------------------------------------------------------- */

/* The integers of the binary encoding, of at most so many bits. */
static bool wh_f_uint(wh_reader *body, int bits, uint64_t *value) {
    if (body->at >= body->end) return false;
    unsigned first = *body->at++;
    int bytes = first == 0xfb ? 2 : first == 0xfc ? 4 : first == 0xfd && bits == 64 ? 8 : 0;
    *value = first;
    if (first <= 250) return true;
    if (!bytes || body->end - body->at < bytes) return false;
    *value = 0;
    for (int i = 0; i < bytes; i++) *value |= (uint64_t)body->at[i] << (8 * i);
    body->at += bytes;
    return true;
}

static bool wh_f_value(wh_reader *body, wh_value *value) {
    uint64_t length;
    if (!wh_f_uint(body, 64, &length) || (uint64_t)(body->end - body->at) < length) return false;
    value->bytes = body->at;
    value->length = (size_t)length;
    body->at += length;
    return true;
}

static bool wh_f_text(wh_reader *body, wh_value *text) {
    return wh_f_value(body, text) && wh_utf8(text->bytes, text->length);
}

/* A bool, or whether an optional field is there. */
static bool wh_f_bool(wh_reader *body, bool *value) {
    if (body->at >= body->end || *body->at > 1) return false;
    *value = *body->at++;
    return true;
}

/* A `ref` by number; any other is not ours. */
static bool wh_f_ref(wh_reader *body, uint64_t *ref) {
    uint64_t variant;
    wh_value text;
    if (!wh_f_uint(body, 32, &variant) || variant > 1) return false;
    if (variant == 0) return wh_f_uint(body, 64, ref);
    *ref = 0;
    return wh_f_text(body, &text);
}

static void wh_w_uint(wh_writer *out, uint64_t value) {
    int bytes = value <= 250 ? 0 : value <= 0xffff ? 2 : value <= 0xffffffff ? 4 : 8;
    if (bytes == 0) wh_byte(out, (unsigned)value);
    else wh_byte(out, bytes == 2 ? 0xfb : bytes == 4 ? 0xfc : 0xfd);
    for (int i = 0; i < bytes; i++) wh_byte(out, (unsigned)(value >> (8 * i)) & 0xff);
}

static void wh_w_data(wh_writer *out, const void *bytes, size_t length) {
    wh_w_uint(out, length);
    wh_append(out, bytes, length);
}

static void wh_w_text(wh_writer *out, const char *text) { wh_w_data(out, text, strlen(text)); }

static void wh_w_maybe(wh_writer *out, bool is_there, uint64_t value) {
    wh_byte(out, is_there);
    if (is_there) wh_w_uint(out, value);
}

static void wh_w_address(wh_writer *out, wh_address worker) {
    wh_byte(out, worker.name ? 0 : 1);
    if (worker.name) wh_w_text(out, worker.name);
    else wh_w_uint(out, worker.number);
}

/* ---- the link ------------------------------------------------------------------------------------------------------- */

struct wh_task {
    wh_link *link;
    struct wh_task *next;
    uint64_t id;
    bool wait, has_sender, failed, cancelled;
    uint64_t sender_number;
    const wh_method *method; /* looked up before it is executed; none if there is no such method */
    size_t name_length;
    char *name, *sender; /* in body, each with a 0 behind it */
    wh_value args;
    uint32_t arg_count;
    struct wh_copy *copies;
    unsigned char body[];
};

/* A text with a 0 behind it, for as long as its task is executed. */
struct wh_copy {
    struct wh_copy *next;
    char text[];
};

struct wh_link {
    int fd;
    wh_writer in, out;
    size_t in_from; /* what of `in` was taken already */
    uint64_t next_ref;
    bool heard;     /* the supervisor has said something in frames */
    bool ended;     /* the other side is gone */
    bool broken;    /* it is beyond repair; `why_broken` says why */
    char error[512], why_broken[400];
    /* What the request that is under way waits for. */
    uint64_t awaited;
    wh_writer receipt, outcome; /* bodies behind the ref */
    bool has_receipt, has_outcome;
    char *receipt_texts;
    char *outcome_texts;
    /* Of a worker. */
    bool is_worker, is_attached, ending, has_left;
    int wake, leave; /* of one that has attached: an eventfd, and how it is to leave: 1 without a drain, 2 with it */
    uint64_t *page;
    uint64_t cancels; /* how often the supervisor has said that a task is not wanted any more */
    char *worker;
    uint64_t number, generation;
    struct wh_task *first, *last, *current;
    bool some_ended_well;
    uint64_t ended_well;
    const wh_method *methods;
    char fail_text[2048];
    char *long_fail;
    wh_writer result;
};

const char *wh_error(const wh_link *link) { return link ? link->error : "there is no link: it is NULL"; }

#ifdef __GNUC__
__attribute__((format(printf, 2, 3)))
#endif
static int wh_wrong(wh_link *link, const char *format, ...) {
    va_list args;
    if (!link) return -1;
    va_start(args, format);
    vsnprintf(link->error, sizeof link->error, format, args);
    va_end(args);
    return -1;
}

static int wh_no_memory(wh_link *link) { return wh_wrong(link, "there is no memory for it"); }

/* What is the error now has broken the link. Later errors do not hide why. */
static int wh_breaks(wh_link *link) {
    if (!link->broken) snprintf(link->why_broken, sizeof link->why_broken, "%.399s", link->error);
    link->broken = true;
    return -1;
}

/* What the supervisor has said, and will not say again, is lost with the memory that there was not. */
static int wh_lost(wh_link *link) {
    wh_no_memory(link);
    return wh_breaks(link);
}

#ifdef __GNUC__
__attribute__((format(printf, 2, 3)))
#endif
static int wh_break(wh_link *link, const char *format, ...) {
    va_list args;
    char text[256];
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    wh_wrong(link, "the supervisor speaks another protocol: %s", text);
    return wh_breaks(link);
}

/* Of what was sent whole, and is not answered. */
static int wh_gone(wh_link *link) {
    return wh_wrong(link, "the supervisor is gone; what was asked last may or may not have happened");
}

static int wh_read_once(wh_link *link, bool waits);
static void wh_leave_if_asked(wh_link *link);
static int wh_take_one(wh_link *link);

/* Of what was not sent, or not whole. */
static int wh_gone_before(wh_link *link) {
    if (!link->heard && !link->broken) { /* it may have said why, and gone without reading */
        link->ended = false;
        while (wh_read_once(link, false) > 0) continue;
        link->ended = true;
        if (wh_take_one(link) < 0) return -1;
    }
    return wh_wrong(link, "the supervisor is gone; this was not sent, and has not happened");
}

/* The name of an address that was made of a null pointer, so that it is not taken for a number, and that of oneself, who has none
 * here. They are known by where they stand, and differ so that no compiler puts them into one place. */
static const char wh_no_name[] = "(null)", wh_own_name[] = "(self)";

wh_address wh_name(const char *name) {
    wh_address address = {name ? name : wh_no_name, 0};
    return address;
}

static int wh_must_be_text(wh_link *link, const char *what, const char *text) {
    char fault[200];
    return wh_text_fault(what, text, fault, sizeof fault) ? wh_wrong(link, "%s", fault) : 0;
}

static int wh_must_be_address(wh_link *link, wh_address worker) {
    if (worker.name == wh_no_name) return wh_wrong(link, "the name of the worker is NULL");
    return worker.name ? wh_must_be_text(link, "the name of the worker", worker.name) : 0;
}

static bool wh_is_signal(const wh_signal *signal) {
    for (int at = 0; at < 32; at++)
        if (!signal->id[at] || !strchr("0123456789abcdef", signal->id[at])) return false;
    return !signal->id[32];
}

static int wh_must_be_signal(wh_link *link, const wh_signal *signal) {
    if (wh_is_signal(signal)) return 0;
    return wh_wrong(link, "this is no signal: wh_signal_new() makes one, wh_arg_signal() and wh_signal_of() read one");
}

wh_address wh_number(uint64_t number) {
    wh_address address = {NULL, number};
    return address;
}

wh_address wh_self(void) {
    wh_address address = {wh_own_name, 0};
    return address;
}

/* Opens a frame in `out` and returns where it begins. */
static size_t wh_open(wh_writer *out, unsigned kind) {
    size_t start = out->length;
    unsigned char header[WH_HEADER] = {WH_VERSION, 0, 0, 0, 0, 0, 0, 0};
    header[1] = (unsigned char)kind;
    wh_append(out, header, sizeof header);
    return start;
}

/* Closes it. If that cannot be sent, `out` is as it was. */
static int wh_shut(wh_link *link, size_t start) {
    wh_writer *out = &link->out;
    size_t length = out->length - start - WH_HEADER;
    if (out->failed) {
        out->failed = false;
        out->length = start;
        return wh_no_memory(link);
    }
    if (length > WH_FRAME_MAX) {
        out->length = start;
        return wh_wrong(link, "a message of %zu bytes is too large, the wire carries %u", length, WH_FRAME_MAX);
    }
    for (int i = 0; i < 4; i++) out->bytes[start + 4 + (size_t)i] = (unsigned char)(length >> (8 * i));
    return 0;
}

static void wh_say_ended_well(wh_link *link) {
    if (!link->some_ended_well) return;
    link->some_ended_well = false;
    size_t start = wh_open(&link->out, WH_K_DONE_ALL);
    wh_w_uint(&link->out, link->ended_well);
    if (wh_shut(link, start)) wh_breaks(link);
}

/* Writes what was collected. That the other side is gone is no error: it is noted. */
static int wh_flush(wh_link *link) {
    size_t sent = 0;
    wh_say_ended_well(link);
    while (sent < link->out.length && !link->ended) {
        ssize_t count = send(link->fd, link->out.bytes + sent, link->out.length - sent, MSG_NOSIGNAL);
        if (count >= 0) sent += (size_t)count;
        else if (errno == EPIPE || errno == ECONNRESET) link->ended = true;
        else if (errno != EINTR) {
            wh_wrong(link, "the connection to the supervisor failed: %s", strerror(errno));
            return wh_breaks(link);
        }
    }
    link->out.length = 0;
    if (link->out.room > 4 * WH_WRITE_BYTES) wh_free(&link->out);
    return 0;
}

static void wh_free_task(struct wh_task *task) {
    while (task->copies) {
        struct wh_copy *copy = task->copies;
        task->copies = copy->next;
        free(copy);
    }
    free(task);
}

static void wh_forget_tasks(wh_link *link) {
    while (link->first) {
        struct wh_task *task = link->first;
        link->first = task->next;
        wh_free_task(task);
    }
    link->last = NULL;
}

static int wh_take_task(wh_link *link, wh_reader body) {
    uint64_t id, number = 0;
    wh_value method, args, sender = {NULL, 0};
    bool has_sender, wait;
    if (!wh_f_uint(&body, 64, &id) || !wh_f_text(&body, &method) || !wh_f_value(&body, &args) ||
        !wh_f_bool(&body, &has_sender) ||
        (has_sender && (!wh_f_text(&body, &sender) || !wh_f_uint(&body, 64, &number))) || !wh_f_bool(&body, &wait))
        return wh_break(link, "a task that is not whole");
    struct wh_task *task = malloc(sizeof *task + method.length + sender.length + args.length + 2);
    if (!task) return wh_lost(link);
    memset(task, 0, sizeof *task);
    unsigned char *at = task->body;
    task->link = link;
    task->id = id;
    task->wait = wait;
    task->has_sender = has_sender;
    task->sender_number = number;
    task->name = (char *)at;
    memcpy(at, method.bytes, method.length);
    at += method.length;
    *at++ = 0;
    task->sender = (char *)at;
    if (sender.length) memcpy(at, sender.bytes, sender.length);
    at += sender.length;
    *at++ = 0;
    task->args.bytes = at;
    task->args.length = args.length;
    if (args.length) memcpy(at, args.bytes, args.length);
    task->name_length = method.length;
    if (link->last) link->last->next = task;
    else link->first = task;
    link->last = task;
    return 0;
}

static char *wh_copy_of(wh_value text) {
    char *copy = malloc(text.length + 1);
    if (copy) {
        if (text.length) memcpy(copy, text.bytes, text.length);
        copy[text.length] = 0;
    }
    return copy;
}

/* Keeps the body of an answer that is waited for. */
static int wh_take_answer(wh_link *link, wh_reader body, wh_writer *into, bool *has) {
    uint64_t ref;
    if (!wh_f_ref(&body, &ref)) return wh_break(link, "an answer without its ref");
    if (!link->awaited || ref != link->awaited || *has) return 0;
    into->length = 0;
    wh_append(into, body.at, (size_t)(body.end - body.at));
    *has = true;
    return into->failed ? wh_no_memory(link) : 0;
}

static int wh_take_error(wh_link *link, wh_reader body) {
    bool has_ref;
    uint64_t ref = 0;
    wh_value detail;
    if (!wh_f_bool(&body, &has_ref) || (has_ref && !wh_f_ref(&body, &ref)) || !wh_f_text(&body, &detail))
        return wh_break(link, "an error that is not whole");
    if (has_ref && (!link->awaited || ref != link->awaited || link->has_receipt)) return 0; /* of something else */
    int length = detail.length > 400 ? 400 : (int)detail.length;
    if (has_ref) {
        link->awaited = 0;
        return wh_wrong(link, "the supervisor did not understand: %.*s", length, (const char *)detail.bytes);
    }
    wh_wrong(link, "the supervisor did not understand: %.*s", length, (const char *)detail.bytes);
    return wh_breaks(link);
}

static int wh_take_in(wh_link *link, unsigned kind, wh_reader body) {
    uint64_t protocol, id;
    wh_value name;
    switch (kind) {
    case WH_K_WELCOME:
        if (!wh_f_uint(&body, 32, &protocol) || !wh_f_text(&body, &name) || !wh_f_uint(&body, 64, &link->number) ||
            !wh_f_uint(&body, 64, &link->generation))
            return wh_break(link, "a welcome that is not whole");
        free(link->worker);
        link->worker = wh_copy_of(name);
        return link->worker ? 0 : wh_lost(link);
    case WH_K_TASK:
        return link->is_worker && !link->ending ? wh_take_task(link, body) : 0;
    case WH_K_END:
        link->ending = true;
        wh_forget_tasks(link);
        return 0;
    case WH_K_CANCELLED:
        if (!wh_f_uint(&body, 64, &id)) return wh_break(link, "a cancelled that is not whole");
        link->cancels++;
        if (link->current && link->current->id == id) link->current->cancelled = true;
        /* One that was sent ahead waits here. */
        for (struct wh_task *task = link->first; task; task = task->next)
            if (task->id == id) task->cancelled = true;
        return 0;
    case WH_K_RECEIPT:
        return wh_take_answer(link, body, &link->receipt, &link->has_receipt);
    case WH_K_OUTCOME:
        return wh_take_answer(link, body, &link->outcome, &link->has_outcome);
    case WH_K_ERROR:
        return wh_take_error(link, body);
    default: /* of a later version */
        return 0;
    }
}

/* One that has no place for a connection says so in a JSON line, whatever the other side speaks. */
static int wh_take_farewell(wh_link *link, const unsigned char *line, size_t length) {
    static const char key[] = "\"detail\":\"";
    const unsigned char *end = memchr(line, '\n', length), *detail = end ? memmem(line, (size_t)(end - line), key, sizeof key - 1) : NULL;
    if (!end && length < 4096 && !link->ended) return 0;
    if (!detail) return wh_break(link, "it speaks JSON lines where binary frames are due");
    detail += sizeof key - 1;
    while (end > detail && *end != '"') end--;
    int shown = end - detail > 400 ? 400 : (int)(end - detail);
    wh_wrong(link, "the supervisor has no place for this connection, and has read nothing: %.*s", shown, (const char *)detail);
    return wh_breaks(link);
}

/* Takes in one message that was read whole: 1, or 0 if there is none, or -1. */
static int wh_take_one(wh_link *link) {
    size_t waiting = link->in.length - link->in_from;
    if (waiting < WH_HEADER) return 0;
    const unsigned char *frame = link->in.bytes + link->in_from;
    if (!link->heard && frame[0] == '{') return wh_take_farewell(link, frame, waiting);
    size_t length = (size_t)frame[4] | (size_t)frame[5] << 8 | (size_t)frame[6] << 16 | (size_t)frame[7] << 24;
    if (frame[0] != WH_VERSION || frame[2] || frame[3])
        return wh_break(link, "%02x %02x %02x %02x is no header of a frame", frame[0], frame[1], frame[2], frame[3]);
    if (length > WH_FRAME_MAX) return wh_break(link, "a frame of %zu bytes, the wire carries %u", length, WH_FRAME_MAX);
    if (waiting < WH_HEADER + length) return 0;
    wh_reader body = {frame + WH_HEADER, frame + WH_HEADER + length};
    link->in_from += WH_HEADER + length;
    link->heard = true;
    return wh_take_in(link, frame[1], body) ? -1 : 1;
}

/* Reads once: 1 if something came, 0 if nothing did (without waiting) or the other side is gone, or -1. */
static int wh_read_once(wh_link *link, bool waits) {
    if (link->broken) return -1;
    if (link->ended) return 0;
    if (link->in_from) { /* what was taken makes room */
        memmove(link->in.bytes, link->in.bytes + link->in_from, link->in.length - link->in_from);
        link->in.length -= link->in_from;
        link->in_from = 0;
        if (link->in.length == 0 && link->in.room > 4 * WH_READ_BYTES) wh_free(&link->in);
    }
    if (!wh_room(&link->in, WH_READ_BYTES)) return wh_lost(link);
    for (;;) {
        if (waits && link->is_attached) {
            /* A flag alone would not do: a signal may come before the wait, and its handler may let the wait go on. */
            struct pollfd both[] = {{link->fd, POLLIN, 0}, {link->wake, POLLIN, 0}};
            if (poll(both, 2, -1) < 0 && errno == EINTR) continue;
            wh_leave_if_asked(link);
            if (link->broken) return -1;
            if (!both[0].revents) continue;
        }
        ssize_t count = recv(link->fd, link->in.bytes + link->in.length, link->in.room - link->in.length, waits ? 0 : MSG_DONTWAIT);
        if (count > 0) {
            link->in.length += (size_t)count;
            return 1;
        }
        if (count < 0 && errno == EINTR) continue;
        if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return 0;
        if (count < 0 && errno != ECONNRESET) {
            wh_wrong(link, "the connection to the supervisor failed: %s", strerror(errno));
            return wh_breaks(link);
        }
        link->ended = true;
        return 0;
    }
}

/* Takes in what there is, without waiting. */
static void wh_look(wh_link *link) {
    int took = 1;
    while (took > 0) {
        while ((took = wh_take_one(link)) > 0) continue;
        if (took < 0) {
            wh_breaks(link); /* found when the method has returned */
            return;
        }
        took = wh_read_once(link, false);
    }
}

/* Waits until `has` or the end. */
static int wh_await(wh_link *link, const bool *has) {
    if (wh_flush(link)) return -1;
    while (!*has) {
        int took = wh_take_one(link);
        if (took < 0) return -1;
        if (took > 0) continue;
        if (link->ended) return wh_gone(link);
        if (wh_read_once(link, true) < 0) return -1;
    }
    return 0;
}

/* Opens a request, whose answers are forgotten with the next. */
static size_t wh_ask(wh_link *link, unsigned kind, uint64_t *ref) {
    wh_say_ended_well(link);
    free(link->receipt_texts);
    free(link->outcome_texts);
    link->receipt_texts = link->outcome_texts = NULL;
    link->has_receipt = link->has_outcome = false;
    *ref = ++link->next_ref;
    return wh_open(&link->out, kind);
}

/* Closes the request and waits for its receipt. */
static int wh_send(wh_link *link, size_t start, uint64_t ref) {
    if (link->broken) {
        link->out.length = start;
        return wh_wrong(link, "this was not sent, because the link is broken: %s", link->why_broken);
    }
    if (wh_shut(link, start)) return -1;
    link->awaited = ref;
    link->receipt.failed = link->outcome.failed = false;
    if (wh_flush(link)) return -1;
    /* It is last in what was to be written: where that failed, this is not whole. */
    if (link->ended) return wh_gone_before(link);
    return wh_await(link, &link->has_receipt);
}

static const char *const wh_ignored_words[] = {"no_worker", "ending", "no_startup_method", "own_killed_worker",
                                               "no_letter", "no_signal", "no_message", "already_triggered"};
static const char *const wh_refused_words[] = {"no_class", "bad_name", "mailbox_full", "too_large",
                                               "not_permitted", "shutting_down", "crash_loop", "name_taken"};
static const char *const wh_dead_words[] = {"crashed", "poison", "timed_out", "never_started", "abandoned", "expired"};
#define WH_WORD(words, index) ((index) < sizeof(words) / sizeof *(words) ? (words)[index] : "of_a_later_version")

/* Reads the receipt. `first` and `id` are of signals. */
static int wh_receipt_of(wh_link *link, wh_receipt *receipt, bool *first, wh_signal *signal) {
    wh_reader body = wh_read(wh_written(&link->receipt));
    uint64_t variant, reason;
    wh_value text;
    wh_receipt unused;
    if (!receipt) receipt = &unused;
    memset(receipt, 0, sizeof *receipt);
    receipt->kind = WH_ANSWERED;
    receipt->reason = receipt->detail = receipt->worker = "";
    if (!wh_f_uint(&body, 32, &variant)) goto broken;
    switch (variant) {
    case 0:
        receipt->kind = WH_ACCEPTED;
        if (!wh_f_text(&body, &text) || !wh_f_uint(&body, 64, &receipt->number) || !wh_f_uint(&body, 64, &receipt->message))
            goto broken;
        receipt->worker = link->receipt_texts = wh_copy_of(text);
        return receipt->worker ? 0 : wh_no_memory(link);
    case 1:
        receipt->kind = WH_IGNORED;
        if (!wh_f_uint(&body, 32, &reason)) goto broken;
        receipt->reason = WH_WORD(wh_ignored_words, reason);
        return 0;
    case 2:
        receipt->kind = WH_REFUSED;
        if (!wh_f_uint(&body, 32, &reason) || !wh_f_text(&body, &text)) goto broken;
        receipt->reason = WH_WORD(wh_refused_words, reason);
        receipt->detail = link->receipt_texts = wh_copy_of(text);
        return receipt->detail ? 0 : wh_no_memory(link);
    case 3:
        receipt->kind = WH_KILLED;
        if (!wh_f_uint(&body, 64, &receipt->discarded)) goto broken;
        return 0;
    case 13:
        if (!wh_f_text(&body, &text) || text.length != 32) goto broken;
        if (signal) {
            memcpy(signal->id, text.bytes, 32);
            signal->id[32] = 0;
        }
        return 0;
    case 14: {
        bool was_first;
        if (!wh_f_bool(&body, &was_first)) goto broken;
        if (first) *first = was_first;
        return 0;
    }
    default:
        return 0;
    }
broken:
    return wh_break(link, "a receipt that is not whole");
}

static int wh_outcome_of(wh_link *link, wh_outcome *outcome) {
    wh_reader body = wh_read(wh_written(&link->outcome));
    uint64_t variant, reason, exit_kind, exit_value;
    wh_value text;
    bool has_exit;
    memset(outcome, 0, sizeof *outcome);
    outcome->kind = WH_OTHER;
    outcome->error = outcome->reason = "";
    if (!wh_f_uint(&body, 32, &variant)) goto broken;
    switch (variant) {
    case 0:
    case 7:
        outcome->kind = variant ? WH_TRIGGERED : WH_DONE;
        if (!wh_f_value(&body, &outcome->value) || !wh_is_value(outcome->value)) goto broken;
        return 0;
    case 1:
        outcome->kind = WH_FAILED;
        if (!wh_f_text(&body, &text)) goto broken;
        outcome->error = link->outcome_texts = wh_copy_of(text);
        return outcome->error ? 0 : wh_no_memory(link);
    case 2:
    case 3:
        outcome->kind = variant == 2 ? WH_DISCARDED : WH_EXPIRED;
        if (!wh_f_bool(&body, &outcome->may_have_run)) goto broken;
        return 0;
    case 4:
        outcome->kind = WH_DEAD;
        if (!wh_f_uint(&body, 32, &reason) || !wh_f_bool(&body, &has_exit) ||
            (has_exit && (!wh_f_uint(&body, 32, &exit_kind) || !wh_f_uint(&body, 32, &exit_value))) ||
            !wh_f_bool(&body, &outcome->may_have_run))
            goto broken;
        outcome->reason = WH_WORD(wh_dead_words, reason);
        return 0;
    case 8:
        outcome->kind = WH_TIMED_OUT;
        return 0;
    case 9:
        outcome->kind = WH_LOST;
        return 0;
    default:
        return 0;
    }
broken:
    return wh_break(link, "an outcome that is not whole");
}

/* ---- requests ------------------------------------------------------------------------------------------------------- */

static int wh_post(wh_link *link, wh_address worker, const char *method, const wh_writer *args, bool wait,
                   wh_conditions conditions, wh_receipt *receipt) {
    static const unsigned char none[] = {0x90};
    wh_value list = {none, 1};
    wh_reader reader;
    wh_item head;
    char fault[200];
    if (!link) return -1;
    if (wh_must_be_text(link, "the name of the method", method) || wh_must_be_address(link, worker)) return -1;
    if (worker.name == wh_own_name) return wh_wrong(link, "a call is for a name or a number, wh_self() is for a kill");
    if (args) {
        if (args->failed) return wh_no_memory(link);
        if (args->mistake) return wh_wrong(link, "the arguments for `%.100s` cannot be sent: %s", method, args->mistake);
        list = wh_written(args);
        reader = wh_read(list);
        if (!wh_is_value(list) || !wh_next(&reader, &head) || head.type != WH_LIST)
            return wh_wrong(link, "the arguments for `%.100s` are not one whole list of at most %d levels: begin with wh_list(&args, COUNT)",
                            method, WH_LEVELS_MAX);
        if (wh_json_fault(list, WH_LEVELS_MAX, fault, sizeof fault))
            return wh_wrong(link, "the arguments for `%.100s` cannot be sent: %s", method, fault);
    }
    uint64_t ref;
    size_t start = wh_ask(link, WH_K_CALL, &ref);
    wh_writer *out = &link->out;
    wh_w_address(out, worker);
    wh_w_text(out, method);
    wh_w_data(out, list.bytes, list.length);
    wh_byte(out, 1); /* there is a ref, a number */
    wh_byte(out, 0);
    wh_w_uint(out, ref);
    wh_byte(out, wait);
    wh_byte(out, conditions.existing);
    wh_w_maybe(out, conditions.expires, conditions.expires_ms);
    wh_byte(out, 0); /* chain */
    wh_w_maybe(out, conditions.in_ms != 0, conditions.in_ms);
    wh_byte(out, 0); /* brief */
    if (wh_send(link, start, ref)) return -1;
    return wh_receipt_of(link, receipt, NULL, NULL);
}

int wh_call_if(wh_link *link, wh_address worker, const char *method, const wh_writer *args, wh_conditions conditions,
               wh_receipt *receipt) {
    return wh_post(link, worker, method, args, false, conditions, receipt);
}

int wh_call(wh_link *link, wh_address worker, const char *method, const wh_writer *args, wh_receipt *receipt) {
    wh_conditions none = {false, false, 0, 0};
    return wh_post(link, worker, method, args, false, none, receipt);
}

int wh_call_and_wait(wh_link *link, wh_address worker, const char *method, const wh_writer *args, wh_receipt *receipt,
                     wh_outcome *outcome) {
    wh_conditions none = {false, false, 0, 0};
    wh_receipt own;
    if (!receipt) receipt = &own;
    if (!outcome) return wh_wrong(link, "there is no place for the outcome: it is NULL; wh_call() waits for none");
    if (wh_post(link, worker, method, args, true, none, receipt)) return -1;
    memset(outcome, 0, sizeof *outcome);
    outcome->kind = WH_OTHER;
    outcome->error = outcome->reason = "";
    if (receipt->kind != WH_ACCEPTED) return 0;
    return wh_await(link, &link->has_outcome) ? -1 : wh_outcome_of(link, outcome);
}

int wh_kill(wh_link *link, wh_address worker, wh_receipt *receipt) {
    uint64_t ref;
    if (!link || wh_must_be_address(link, worker)) return -1;
    size_t start = wh_ask(link, WH_K_KILL, &ref);
    bool self = worker.name == wh_own_name;
    wh_byte(&link->out, !self);
    if (!self) wh_w_address(&link->out, worker);
    wh_byte(&link->out, 1);
    wh_byte(&link->out, 0);
    wh_w_uint(&link->out, ref);
    for (int i = 0; i < 4; i++) wh_byte(&link->out, 0); /* wait, within_ms, drain, now */
    if (wh_send(link, start, ref)) return -1;
    return wh_receipt_of(link, receipt, NULL, NULL);
}

static void wh_w_ref(wh_writer *out, uint64_t ref) {
    wh_byte(out, 0);
    wh_w_uint(out, ref);
}

/* A receipt that is none of success is an error that says so. */
static int wh_must(wh_link *link, const wh_receipt *receipt, const char *what) {
    if (receipt->kind == WH_IGNORED) return wh_wrong(link, "%s: ignored: %s", what, receipt->reason);
    if (receipt->kind == WH_REFUSED) return wh_wrong(link, "%s: refused: %s: %.300s", what, receipt->reason, receipt->detail);
    return 0;
}

int wh_signal_new(wh_link *link, const char *description, uint64_t keep_ms, wh_signal *signal) {
    uint64_t ref;
    wh_receipt receipt;
    if (!link) return -1;
    if (!signal) return wh_wrong(link, "there is no place for the new signal: it is NULL");
    memset(signal, 0, sizeof *signal);
    if (description && wh_must_be_text(link, "the description of the signal", description)) return -1;
    size_t start = wh_ask(link, WH_K_SIGNAL_NEW, &ref);
    wh_w_ref(&link->out, ref);
    wh_byte(&link->out, description != NULL);
    if (description) wh_w_text(&link->out, description);
    wh_w_maybe(&link->out, keep_ms != 0, keep_ms);
    if (wh_send(link, start, ref) || wh_receipt_of(link, &receipt, NULL, signal)) return -1;
    if (wh_must(link, &receipt, "the signal was not made")) return -1;
    return signal->id[0] ? 0 : wh_break(link, "the answer to `signal_new` has no id");
}

void wh_signal_put(wh_writer *out, wh_signal signal) {
    if (!wh_is_signal(&signal)) {
        wh_mistake(out, "a signal is none");
        return;
    }
    wh_map(out, 1);
    wh_text(out, "$signal");
    wh_text(out, signal.id);
}

bool wh_signal_of(wh_value value, wh_signal *signal) {
    wh_reader reader = wh_read(value);
    wh_item map, key, id;
    wh_signal unused;
    if (!signal) signal = &unused;
    if (!wh_next(&reader, &map) || map.type != WH_MAP || map.count != 1) return false;
    if (!wh_next(&reader, &key) || key.type != WH_TEXT || key.length != 7 || memcmp(key.data, "$signal", 7)) return false;
    if (!wh_next(&reader, &id) || id.type != WH_TEXT || id.length != 32) return false;
    memcpy(signal->id, id.data, 32);
    signal->id[32] = 0;
    return strspn(signal->id, "0123456789abcdef") == 32;
}

int wh_signal_set(wh_link *link, wh_signal signal, const char *key, wh_value value) {
    uint64_t ref;
    wh_receipt receipt;
    char fault[200];
    if (!link || wh_must_be_signal(link, &signal) || wh_must_be_text(link, "the key of the signal's value", key)) return -1;
    if (!wh_is_value(value))
        return wh_wrong(link, "what is to be written under `%.100s` is not one value of at most %d levels", key, WH_SIGNAL_LEVELS_MAX);
    if (!wh_has_utf8_only(value))
        return wh_wrong(link, "what is to be written under `%.100s` cannot be sent: a text in it is no UTF-8", key);
    if (wh_json_fault(value, WH_SIGNAL_LEVELS_MAX, fault, sizeof fault))
        return wh_wrong(link, "what is to be written under `%.100s` cannot be sent: %s", key, fault);
    size_t start = wh_ask(link, WH_K_SIGNAL_SET, &ref);
    wh_byte(&link->out, 1);
    wh_w_ref(&link->out, ref);
    wh_w_text(&link->out, signal.id);
    wh_w_text(&link->out, key);
    wh_w_data(&link->out, value.bytes, value.length);
    if (wh_send(link, start, ref) || wh_receipt_of(link, &receipt, NULL, NULL)) return -1;
    return wh_must(link, &receipt, "the signal's value was not written");
}

int wh_signal_trigger(wh_link *link, wh_signal signal, bool *first) {
    uint64_t ref;
    wh_receipt receipt;
    if (!link || wh_must_be_signal(link, &signal)) return -1;
    size_t start = wh_ask(link, WH_K_SIGNAL_TRIGGER, &ref);
    wh_byte(&link->out, 1);
    wh_w_ref(&link->out, ref);
    wh_w_text(&link->out, signal.id);
    if (wh_send(link, start, ref) || wh_receipt_of(link, &receipt, first, NULL)) return -1;
    return wh_must(link, &receipt, "the signal was not triggered");
}

int wh_signal_wait(wh_link *link, wh_signal signal, double seconds, wh_outcome *outcome) {
    uint64_t ref, ms = 0;
    wh_receipt receipt;
    if (!link || wh_must_be_signal(link, &signal)) return -1;
    if (!outcome) return wh_wrong(link, "there is no place for the outcome: it is NULL");
    if (seconds != seconds) return wh_wrong(link, "the seconds to wait are no number");
    bool for_ever = seconds < 0;
    /* Rounded up: what is not zero does not become a mere look. */
    if (!for_ever) ms = seconds >= 1e15 ? UINT64_C(1000000000000000000) : (uint64_t)(seconds * 1000);
    if (!for_ever && (double)ms < seconds * 1000) ms++;
    size_t start = wh_ask(link, WH_K_SIGNAL_WAIT, &ref);
    wh_w_ref(&link->out, ref);
    wh_w_text(&link->out, signal.id);
    wh_w_maybe(&link->out, !for_ever, ms);
    if (wh_send(link, start, ref) || wh_receipt_of(link, &receipt, NULL, NULL)) return -1;
    if (wh_must(link, &receipt, "the signal cannot be waited for")) return -1;
    return wh_await(link, &link->has_outcome) ? -1 : wh_outcome_of(link, outcome);
}

/* ---- the client ----------------------------------------------------------------------------------------------------- */

void wh_close(wh_link *link) {
    if (!link) return;
    wh_forget_tasks(link);
    if (link->page) munmap(link->page, WH_PAGE_BYTES);
    if (link->is_attached) close(link->wake);
    close(link->fd);
    wh_free(&link->in);
    wh_free(&link->out);
    wh_free(&link->receipt);
    wh_free(&link->outcome);
    wh_free(&link->result);
    free(link->receipt_texts);
    free(link->outcome_texts);
    free(link->worker);
    free(link->long_fail);
    free(link);
}

wh_link *wh_connect(const char *path, char *error, size_t room) {
    struct sockaddr_un address;
    char default_path[sizeof address.sun_path + 64];
    const char *set = getenv("WORKHALL_SOCKET"), *runtime = getenv("XDG_RUNTIME_DIR");
    if (!error) room = 0;
    if (!path && set && *set) path = set;
    if (!path && runtime && *runtime) {
        snprintf(default_path, sizeof default_path, "%s/workhall/workhall.sock", runtime);
        path = default_path;
    }
    if (!path) path = "/run/workhall/workhall.sock";
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address.sun_path) {
        snprintf(error, room, "the path of the socket is too long: %s", path);
        return NULL;
    }
    strcpy(address.sun_path, path);
    wh_link *link = calloc(1, sizeof *link);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int failed = -1;
    /* On Linux a connect to a path that a signal has interrupted was given up, and does not go on by itself. */
    if (link && fd >= 0)
        do failed = connect(fd, (struct sockaddr *)&address, sizeof address);
        while (failed && errno == EINTR);
    if (failed) {
        snprintf(error, room, "no supervisor answers at %s: %s", path, strerror(errno));
        if (fd >= 0) close(fd);
        free(link);
        return NULL;
    }
    link->fd = fd;
    return link;
}

/* ---- the worker ----------------------------------------------------------------------------------------------------- */

wh_link *wh_link_of(wh_task *task) { return task ? task->link : NULL; }
const char *wh_worker_name(const wh_task *task) { return task && task->link->worker ? task->link->worker : ""; }
uint64_t wh_worker_number(const wh_task *task) { return task ? task->link->number : 0; }
uint64_t wh_generation(const wh_task *task) { return task ? task->link->generation : 0; }
uint64_t wh_message(const wh_task *task) { return task ? task->id : 0; }
const char *wh_method_of(const wh_task *task) { return task ? task->name : ""; }
wh_writer *wh_result(wh_task *task) { return task ? &task->link->result : NULL; }
uint32_t wh_arg_count(const wh_task *task) { return task ? task->arg_count : 0; }

const char *wh_sender(const wh_task *task, uint64_t *number) {
    if (number) *number = task ? task->sender_number : 0;
    return task && task->has_sender ? task->sender : NULL;
}

static uint64_t wh_load(const uint64_t *word) { return le64toh(__atomic_load_n(word, __ATOMIC_SEQ_CST)); }
static void wh_store(uint64_t *word, uint64_t value) { __atomic_store_n(word, htole64(value), __ATOMIC_SEQ_CST); }

bool wh_end_requested(wh_task *task) {
    if (!task) return false;
    wh_link *link = task->link;
    if (link->page && wh_load(link->page + WH_STOP)) return true;
    wh_leave_if_asked(link);
    wh_look(link);
    return link->ending || link->ended || link->broken;
}

bool wh_is_cancelled(wh_task *task) {
    if (!task) return false;
    wh_look(task->link);
    return task->cancelled;
}

int wh_reply(wh_task *task, const char *method, const wh_writer *args, wh_receipt *receipt) {
    if (!task) return -1;
    if (!task->has_sender) return wh_wrong(task->link, "the message was sent by a client, which cannot be called back");
    return wh_call(task->link, wh_number(task->sender_number), method, args, receipt);
}

int wh_fail(wh_task *task, const char *format, ...) {
    if (!task) return -1;
    wh_link *link = task->link;
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = format ? vsnprintf(link->fail_text, sizeof link->fail_text, format, args) : -1;
    va_end(args);
    if (length < 0) snprintf(link->fail_text, sizeof link->fail_text, "`%.255s` failed, and what it said of it is no text", task->name);
    free(link->long_fail);
    link->long_fail = NULL;
    if (length >= (int)sizeof link->fail_text && (link->long_fail = malloc((size_t)length + 1)) != NULL)
        vsnprintf(link->long_fail, (size_t)length + 1, format, again);
    va_end(again);
    task->failed = true;
    return -1;
}

/* The method has given no place for an argument. */
static int wh_no_place(wh_task *task, uint32_t index) {
    wh_fail(task, "`%s` has no place for argument %u: the pointer is NULL", wh_method_of(task), index + 1);
    return -1;
}

int wh_arg(wh_task *task, uint32_t index, wh_value *value) {
    if (!task || !value) return wh_no_place(task, index);
    wh_reader reader = wh_read(task->args);
    wh_item head;
    if (index >= task->arg_count || !wh_next(&reader, &head))
        return wh_fail(task, "the arguments of `%s` do not fit: argument %u is missing", task->name, index + 1);
    for (uint32_t at = 0; at <= index; at++)
        if (!wh_next_value(&reader, value)) return wh_fail(task, "the arguments of `%s` are no MessagePack", task->name);
    return 0;
}

static int wh_unfit(wh_task *task, uint32_t index, wh_type found, const char *needed) {
    return wh_fail(task, "the arguments of `%s` do not fit: argument %u is %s, and %s is needed", task->name, index + 1,
                   wh_type_name(found), needed);
}

static int wh_arg_item(wh_task *task, uint32_t index, wh_item *item) {
    wh_value value;
    if (wh_arg(task, index, &value)) return -1;
    wh_reader reader = wh_read(value);
    return wh_next(&reader, item) ? 0 : wh_fail(task, "the arguments of `%s` are no MessagePack", task->name);
}

int wh_arg_bool(wh_task *task, uint32_t index, bool *value) {
    wh_item item;
    if (!task || !value) return wh_no_place(task, index);
    if (wh_arg_item(task, index, &item)) return -1;
    *value = item.boolean;
    return item.type == WH_BOOL ? 0 : wh_unfit(task, index, item.type, "true or false");
}

int wh_arg_int(wh_task *task, uint32_t index, int64_t *value) {
    wh_item item;
    if (!task || !value) return wh_no_place(task, index);
    if (wh_arg_item(task, index, &item)) return -1;
    *value = item.type == WH_INT ? item.integer : (int64_t)(item.whole & INT64_MAX);
    bool fits = item.type == WH_INT || (item.type == WH_UINT && item.whole <= INT64_MAX);
    return fits ? 0 : wh_unfit(task, index, item.type, "a whole number of 64 bits with a sign");
}

int wh_arg_uint(wh_task *task, uint32_t index, uint64_t *value) {
    wh_item item;
    if (!task || !value) return wh_no_place(task, index);
    if (wh_arg_item(task, index, &item)) return -1;
    *value = item.whole;
    return item.type == WH_UINT ? 0 : wh_unfit(task, index, item.type, "a whole number from 0");
}

int wh_arg_double(wh_task *task, uint32_t index, double *value) {
    wh_item item;
    if (!task || !value) return wh_no_place(task, index);
    if (wh_arg_item(task, index, &item)) return -1;
    *value = item.type == WH_INT ? (double)item.integer : item.type == WH_UINT ? (double)item.whole : item.real;
    bool fits = item.type == WH_INT || item.type == WH_UINT || item.type == WH_DOUBLE;
    return fits ? 0 : wh_unfit(task, index, item.type, "a number");
}

int wh_arg_text(wh_task *task, uint32_t index, const char **text, size_t *length) {
    wh_item item;
    if (!task || !text) return wh_no_place(task, index);
    *text = "";
    if (wh_arg_item(task, index, &item)) return -1;
    if (item.type != WH_TEXT) return wh_unfit(task, index, item.type, "a text");
    if (!length && memchr(item.data, 0, item.length)) return wh_unfit(task, index, item.type, "a text without 0 bytes");
    struct wh_copy *copy = malloc(sizeof *copy + item.length + 1);
    if (!copy) return wh_fail(task, "there is no memory for the arguments of `%s`", task->name);
    if (item.length) memcpy(copy->text, item.data, item.length);
    copy->text[item.length] = 0;
    copy->next = task->copies;
    task->copies = copy;
    *text = copy->text;
    if (length) *length = item.length;
    return 0;
}

int wh_arg_bytes(wh_task *task, uint32_t index, const unsigned char **bytes, size_t *length) {
    wh_item item;
    if (!task || !bytes || !length) return wh_no_place(task, index);
    if (wh_arg_item(task, index, &item)) return -1;
    *bytes = item.data;
    *length = item.length;
    return item.type == WH_BYTES ? 0 : wh_unfit(task, index, item.type, "bytes");
}

int wh_arg_address(wh_task *task, uint32_t index, wh_address *worker) {
    wh_item item;
    const char *name = "";
    if (!task || !worker) return wh_no_place(task, index);
    if (wh_arg_item(task, index, &item)) return -1;
    *worker = wh_number(item.whole);
    if (item.type == WH_UINT) return 0;
    if (item.type != WH_TEXT) return wh_unfit(task, index, item.type, "a worker's name or number");
    if (wh_arg_text(task, index, &name, NULL)) return -1;
    *worker = wh_name(name);
    return 0;
}

int wh_arg_signal(wh_task *task, uint32_t index, wh_signal *signal) {
    wh_value value;
    wh_item item;
    if (!task || !signal) return wh_no_place(task, index);
    if (wh_arg(task, index, &value) || wh_arg_item(task, index, &item)) return -1;
    return wh_signal_of(value, signal) ? 0 : wh_unfit(task, index, item.type, "a signal");
}

static uint32_t wh_parameters(const char *parameters) {
    uint32_t count = *parameters != 0;
    for (; *parameters; parameters++) count += *parameters == ',';
    return count;
}

static int wh_unknown(wh_task *task) {
    char known[1024] = "";
    size_t length = 0;
    for (const wh_method *method = task->link->methods; method && method->name && length < sizeof known - 1; method++) {
        int more = snprintf(known + length, sizeof known - length, "%s`%s`", length ? ", " : "", method->name);
        length += more > 0 ? (size_t)more : 0;
    }
    return wh_fail(task, "there is no method `%s`: this worker has %s", task->name, *known ? known : "none");
}

static int wh_execute(wh_task *task, void *state) {
    wh_reader reader = wh_read(task->args);
    wh_item head;
    char fault[200];
    for (const wh_method *known = task->link->methods; known && known->name; known++)
        if (strlen(known->name) == task->name_length && !memcmp(known->name, task->name, task->name_length)) task->method = known;
    if (!task->method) return wh_unknown(task);
    if (!wh_is_value(task->args) || !wh_next(&reader, &head) || head.type != WH_LIST)
        return wh_fail(task, "the arguments of `%s` do not fit: they are not one whole list in MessagePack", task->name);
    task->arg_count = head.count;
    const char *parameters = task->method->parameters;
    if (parameters && wh_parameters(parameters) != head.count)
        return wh_fail(task, "the arguments of `%s` do not fit: it takes (%s), and %u came", task->name, parameters, head.count);
    if (task->method->function(task, state)) {
        if (!task->failed) wh_fail(task, "`%s` failed and did not say why", task->name);
        return -1;
    }
    if (task->failed) return -1; /* the method has forgotten to return it */
    wh_writer *result = &task->link->result;
    if (result->failed) return wh_fail(task, "there is no memory for the result of `%s`", task->name);
    if (result->mistake) return wh_fail(task, "the result of `%s` cannot be sent: %s", task->name, result->mistake);
    if (result->length == 0) wh_nil(result);
    if (!wh_is_value(wh_written(result)))
        return wh_fail(task, "the result of `%s` cannot be sent: it is not one value of at most 64 levels", task->name);
    if (wh_json_fault(wh_written(result), WH_LEVELS_MAX, fault, sizeof fault))
        return wh_fail(task, "the result of `%s` cannot be sent: %s", task->name, fault);
    return 0;
}

/* An error's text, made UTF-8 where it is not. */
static void wh_w_error(wh_writer *out, const char *text) {
    const unsigned char *at = (const unsigned char *)text, *end;
    size_t length = strlen(text);
    if (length > 1u << 20) length = 1u << 20;
    end = at + length;
    wh_w_uint(out, length);
    while (at < end) {
        size_t step = wh_utf8_at(at, end);
        wh_append(out, step ? (const void *)at : "?", step ? step : 1);
        at += step ? step : 1;
    }
}

static int wh_settle_failed(wh_link *link, wh_task *task) {
    wh_say_ended_well(link);
    size_t start = wh_open(&link->out, WH_K_FAILED);
    wh_w_uint(&link->out, task->id);
    wh_w_error(&link->out, link->long_fail ? link->long_fail : link->fail_text);
    return wh_shut(link, start);
}

/* Says how the task has ended; it is written with others, or by wh_flush(). Returns whether it is to be written at once, or -1. */
static int wh_settle(wh_link *link, wh_task *task, int failed) {
    if (failed) return wh_settle_failed(link, task) ? -1 : 1;
    if (!task->wait && link->result.length <= WH_UNHEARD_MAX) {
        link->some_ended_well = true;
        link->ended_well = task->id;
        return 0;
    }
    wh_say_ended_well(link);
    size_t start = wh_open(&link->out, WH_K_DONE);
    wh_w_uint(&link->out, task->id);
    wh_w_data(&link->out, link->result.bytes, link->result.length);
    if (wh_shut(link, start) == 0) return task->wait;
    wh_fail(task, "the result of `%s` cannot be sent: %s", task->name, link->error);
    return wh_settle_failed(link, task) ? -1 : 1;
}

static int64_t wh_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Marks a task as begun, unless none may begin any more. */
static bool wh_begin(uint64_t *page, uint64_t id) {
    if (!page) return true;
    uint64_t before = wh_load(page + WH_BEGUN);
    wh_store(page + WH_BEGUN, id);
    if (!wh_load(page + WH_STOP)) return true;
    wh_store(page + WH_BEGUN, before);
    return false;
}

/* A task that nobody has begun, and nobody will. At once: a mark behind it would say that it was. */
static int wh_drop(wh_link *link, wh_task *task) {
    wh_say_ended_well(link);
    size_t start = wh_open(&link->out, WH_K_DROPPED);
    wh_w_uint(&link->out, task->id);
    link->first = task->next;
    if (!link->first) link->last = NULL;
    wh_free_task(task);
    return wh_shut(link, start) || wh_flush(link) ? -1 : 0;
}

static int wh_work(wh_link *link, void *state, uint32_t window) {
    pid_t parent = getppid();
    uint32_t unsent = 0;
    int64_t sent = wh_now();
    while (!link->ending) {
        /* All that was read: the kill, or the cancel, of the next task may stand behind it. */
        int took;
        while ((took = wh_take_one(link)) > 0) continue;
        if (took < 0) return -1;
        if (link->ending) break;
        wh_task *task = link->first;
        if (!task) {
            if (wh_flush(link)) return -1;
            unsent = 0;
            if (link->ended) break;
            if (wh_read_once(link, true) < 0) return -1;
            sent = wh_now();
            continue;
        }
        /* What was sent ahead is not begun any more when the supervisor has died. */
        if (!link->is_attached && getppid() != parent) break;
        if (unsent && (!task->next || wh_now() - sent >= WH_SAY_WITHIN)) {
            /* What has ended must not wait until a task that may take long has ended too. */
            if (wh_flush(link)) return -1;
            unsent = 0;
            sent = wh_now();
        }
        if (link->page && wh_load(link->page + WH_CANCELS) != link->cancels) {
            /* It may be this one. What is not there yet is looked for before the next; a kill takes them all. */
            wh_look(link);
            if (link->broken) return -1;
            if (link->first != task) continue;
        }
        if (link->ended) break;
        if (task->cancelled) {
            if (wh_drop(link, task)) return -1;
            unsent = 0;
            sent = wh_now();
            continue;
        }
        if (!wh_begin(link->page, task->id)) break;
        link->first = task->next;
        if (!link->first) link->last = NULL;
        link->current = task;
        link->result.length = 0;
        link->result.failed = false;
        link->result.mistake = NULL;
        int at_once = wh_settle(link, task, wh_execute(task, state));
        link->current = NULL;
        if (link->result.room > WH_READ_BYTES) wh_free(&link->result);
        uint64_t id = task->id;
        wh_free_task(task);
        if (at_once < 0) return -1;
        unsent++;
        if (at_once || !link->page || unsent >= (window + 1) / 2 || link->out.length >= WH_WRITE_BYTES) {
            if (wh_flush(link)) return -1;
            unsent = 0;
            sent = wh_now();
            if (link->ended) break; /* it was not heard: as far as anybody can know the task is not finished */
        }
        if (link->page) wh_store(link->page + WH_FINISHED, id);
        if (link->broken) {
            wh_flush(link);
            wh_wrong(link, "%s", link->why_broken);
            return -1;
        }
    }
    return wh_flush(link);
}

static int wh_must_be_methods(wh_link *link, const wh_method *methods) {
    char what[64];
    if (!methods) return wh_wrong(link, "the table of methods is NULL");
    for (size_t at = 0; methods[at].name; at++) {
        snprintf(what, sizeof what, "the name of method %zu in the table", at + 1);
        if (wh_must_be_text(link, what, methods[at].name)) return -1;
        if (!methods[at].function) return wh_wrong(link, "the method `%.255s` has no function: it is NULL", methods[at].name);
    }
    return 0;
}

/* The descriptor that a variable names, which our children do not inherit; -1 if there is none, -2 if it is wrong. */
static int wh_inherited(const char *variable) {
    const char *text = getenv(variable);
    char *end;
    if (!text) return -1;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (errno || *end || end == text || number <= 2 || number > INT32_MAX || fcntl((int)number, F_SETFD, FD_CLOEXEC)) {
        fprintf(stderr, "workhall: %s is `%s`, which is no descriptor that a supervisor hands over\n", variable, text);
        return -2;
    }
    return (int)number;
}

static uint64_t *wh_attach_page(int fd) {
    struct stat info;
    if (fstat(fd, &info) || info.st_size != WH_PAGE_BYTES) return NULL;
    void *page = mmap(NULL, WH_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) return NULL;
    close(fd);
    wh_store((uint64_t *)page + WH_ATTACHED, 1);
    return page;
}

int wh_run(const wh_method *methods, void *state, uint32_t window) {
    int fd = wh_inherited("WORKHALL_FD"), page_fd = wh_inherited("WORKHALL_MARK_FD");
    if (fd == -1)
        fprintf(stderr, "this program is a Workhall worker: a supervisor starts it at the first message to its name "
                        "(WORKHALL_FD is not set)\n");
    if (fd < 0 || page_fd == -2) return 1;
    wh_link *link = calloc(1, sizeof *link);
    if (!link) return 1;
    link->fd = fd;
    link->is_worker = true;
    link->methods = methods;
    if (wh_must_be_methods(link, methods)) {
        fprintf(stderr, "workhall: %s\n", link->error);
        wh_close(link);
        return 1;
    }
    if (page_fd >= 0 && !(link->page = wh_attach_page(page_fd))) {
        fprintf(stderr, "workhall: the mark page cannot be mapped: %s\n", strerror(errno));
        wh_close(link);
        return 1;
    }
    /* Without a page to mark what begins, only one task at a time keeps the promises. */
    if (!link->page) window = 1;
    else if (!window) window = WH_WINDOW;
    size_t start = wh_open(&link->out, WH_K_READY);
    wh_w_uint(&link->out, 1);
    wh_w_uint(&link->out, window);
    int failed = wh_shut(link, start) || wh_flush(link) || wh_work(link, state, window);
    if (failed) fprintf(stderr, "workhall: %s\n", link->error);
    wh_close(link);
    return failed ? 1 : 0;
}

/* ---- an attached worker --------------------------------------------------------------------------------------------- */

/* Asks for the name, and waits for the answer. */
static int wh_take_name(wh_link *link, const char *name) {
    uint64_t ref;
    wh_receipt receipt;
    size_t start = wh_ask(link, WH_K_ATTACH, &ref);
    wh_w_uint(&link->out, 1);
    wh_w_text(&link->out, name);
    wh_byte(&link->out, 1);
    wh_w_ref(&link->out, ref);
    if (wh_shut(link, start)) return -1;
    link->awaited = ref;
    if (wh_flush(link)) return -1;
    if (link->ended) return wh_gone_before(link);
    while (!link->worker && !link->has_receipt) {
        int took = wh_take_one(link);
        if (took < 0) return -1;
        if (took > 0) continue;
        if (link->ended) return wh_wrong(link, "the supervisor is gone");
        if (wh_read_once(link, true) < 0) return -1;
    }
    if (link->worker) return 0;
    if (wh_receipt_of(link, &receipt, NULL, NULL)) return -1;
    if (receipt.kind != WH_REFUSED) return wh_break(link, "an answer to `attach` that is none");
    return wh_wrong(link, "%s: %.400s", receipt.reason, receipt.detail);
}

static int wh_become_attached(wh_link *link) {
    link->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (link->wake < 0) return wh_wrong(link, "there is no eventfd for it: %s", strerror(errno));
    link->is_worker = link->is_attached = true;
    return 0;
}

wh_link *wh_attach(const char *path, const char *name, char *error, size_t room) {
    char fault[200];
    if (!error) room = 0;
    if (wh_text_fault("the name of the worker", name, fault, sizeof fault)) {
        snprintf(error, room, "cannot attach: %s", fault);
        return NULL;
    }
    wh_link *link = wh_connect(path, error, room);
    if (!link) return NULL;
    if (wh_become_attached(link)) {
        snprintf(error, room, "cannot attach as `%.255s`: %s", name, link->error);
        wh_close(link);
        return NULL;
    }
    if (wh_take_name(link, name) == 0) return link;
    snprintf(error, room, "cannot attach as `%.255s`: %s", name, link->error);
    wh_close(link);
    return NULL;
}

static int wh_has_left(wh_link *link) {
    return wh_wrong(link, "it has served to its end, and has no name any more: wh_attach() takes one");
}

int wh_serve(wh_link *link, const wh_method *methods, void *state) {
    if (!link) return -1;
    if (!link->is_attached) return wh_wrong(link, "this link has no name to serve: wh_attach() makes one that has");
    if (link->current) return wh_wrong(link, "a method cannot serve: this link serves already");
    if (link->has_left) return wh_has_left(link);
    if (wh_must_be_methods(link, methods)) return -1;
    if (link->broken) return wh_wrong(link, "the link is broken: %s", link->why_broken);
    link->methods = methods;
    /* A task may have been read before, by a call; what has come since, like its cancel, is read before it is begun. */
    wh_look(link);
    if (link->broken) return -1;
    if (wh_work(link, state, 1)) return -1;
    link->has_left = link->ending;
    return link->ending ? 0 : wh_wrong(link, "the supervisor is gone");
}

int wh_leave(wh_link *link, bool drain) {
    if (!link) return -1;
    if (!link->is_attached)
        return wh_wrong(link, "only who has attached leaves; a worker of the supervisor's ends by wh_kill(link, wh_self(), NULL)");
    if (link->has_left) return wh_has_left(link);
    if (link->broken) return wh_wrong(link, "this was not sent, because the link is broken: %s", link->why_broken);
    wh_say_ended_well(link);
    size_t start = wh_open(&link->out, WH_K_LEAVE);
    wh_byte(&link->out, drain);
    if (wh_shut(link, start) || wh_flush(link)) return -1;
    return link->ended ? wh_gone_before(link) : 0;
}

void wh_leave_soon(wh_link *link, bool drain) {
    const uint64_t one = 1;
    int before = errno;
    if (!link || !link->is_attached) return;
    __atomic_store_n(&link->leave, drain ? 2 : 1, __ATOMIC_SEQ_CST);
    ssize_t written = write(link->wake, &one, sizeof one); /* that it is full already is well, too */
    (void)written;
    errno = before;
}

static void wh_leave_if_asked(wh_link *link) {
    uint64_t count;
    if (!link->is_attached || read(link->wake, &count, sizeof count) != sizeof count) return;
    int how = __atomic_exchange_n(&link->leave, 0, __ATOMIC_SEQ_CST);
    if (how && !link->ending) wh_leave(link, how == 2);
}

#endif /* WORKHALL_IMPLEMENTED */
#endif /* WORKHALL_IMPLEMENTATION */
