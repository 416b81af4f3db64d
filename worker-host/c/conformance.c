/* The agreed methods of the conformance suite (`conformance --help`) in C. */
#define WORKHALL_IMPLEMENTATION
#include "workhall.h"

#include <signal.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int echo(wh_task *task, void *state) {
    wh_value x;
    (void)state;
    if (wh_arg(task, 0, &x)) return -1;
    wh_put(wh_result(task), x);
    return 0;
}

static int fail(wh_task *task, void *state) {
    const char *text;
    (void)state;
    if (wh_arg_text(task, 0, &text, NULL)) return -1;
    return wh_fail(task, "%s", text);
}

static void rest(uint64_t ms) {
    struct timespec time = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    while (nanosleep(&time, &time)) continue;
}

static int sleep_ms(wh_task *task, void *state) {
    uint64_t ms;
    (void)state;
    if (wh_arg_uint(task, 0, &ms)) return -1;
    rest(ms);
    return 0;
}

static int crash(wh_task *task, void *state) {
    (void)task;
    (void)state;
    _Exit(3);
}

static int who(wh_task *task, void *state) {
    wh_writer *result = wh_result(task);
    (void)state;
    wh_list(result, 3);
    wh_text(result, wh_worker_name(task));
    wh_uint(result, wh_worker_number(task));
    wh_uint(result, wh_generation(task));
    return 0;
}

static int sender(wh_task *task, void *state) {
    uint64_t number;
    const char *name = wh_sender(task, &number);
    (void)state;
    if (!name) return 0;
    wh_list(wh_result(task), 2);
    wh_text(wh_result(task), name);
    wh_uint(wh_result(task), number);
    return 0;
}

/* A receipt as the suite wants it. `failed` is what the request returned. */
static int told(wh_task *task, int failed, const wh_receipt *receipt) {
    char text[128];
    if (failed) return wh_fail(task, "%s", wh_error(wh_link_of(task)));
    switch (receipt->kind) {
    case WH_ACCEPTED: snprintf(text, sizeof text, "accepted"); break;
    case WH_IGNORED: snprintf(text, sizeof text, "ignored %s", receipt->reason); break;
    case WH_REFUSED: snprintf(text, sizeof text, "refused %s", receipt->reason); break;
    case WH_KILLED: snprintf(text, sizeof text, "killed %llu", (unsigned long long)receipt->discarded); break;
    default: return wh_fail(task, "the receipt is none of a call or a kill");
    }
    wh_text(wh_result(task), text);
    return 0;
}

/* The argument at `index` as the arguments of a call. */
static int args_of(wh_task *task, uint32_t index, wh_writer *args) {
    wh_value value;
    if (wh_arg(task, index, &value)) return -1;
    wh_put(args, value);
    return 0;
}

static int call(wh_task *task, void *state) {
    wh_address worker;
    const char *method;
    wh_writer args = {0};
    wh_receipt receipt;
    (void)state;
    if (wh_arg_address(task, 0, &worker) || wh_arg_text(task, 1, &method, NULL) || args_of(task, 2, &args)) return -1;
    int failed = wh_call(wh_link_of(task), worker, method, &args, &receipt);
    wh_free(&args);
    return told(task, failed, &receipt);
}

static int reply(wh_task *task, void *state) {
    const char *method;
    wh_writer args = {0};
    wh_receipt receipt;
    (void)state;
    if (wh_arg_text(task, 0, &method, NULL) || args_of(task, 1, &args)) return -1;
    int failed = wh_reply(task, method, &args, &receipt);
    wh_free(&args);
    return told(task, failed, &receipt);
}

static int kill_worker(wh_task *task, void *state) {
    wh_address worker = wh_self();
    wh_value value;
    wh_receipt receipt;
    (void)state;
    if (wh_arg(task, 0, &value)) return -1;
    if (value.bytes[0] != 0xc0 && wh_arg_address(task, 0, &worker)) return -1; /* not nil */
    return told(task, wh_kill(wh_link_of(task), worker, &receipt), &receipt);
}

static int last_words(wh_task *task, void *state) {
    wh_address worker;
    const char *method;
    wh_receipt receipt;
    (void)state;
    if (wh_arg_address(task, 0, &worker) || wh_arg_text(task, 1, &method, NULL)) return -1;
    if (wh_kill(wh_link_of(task), wh_self(), &receipt)) return told(task, -1, &receipt);
    return told(task, wh_call(wh_link_of(task), worker, method, NULL, &receipt), &receipt);
}

/* Whether it becomes so within so many milliseconds. */
static int within(wh_task *task, bool (*is_so)(wh_task *)) {
    uint64_t ms;
    bool so;
    if (wh_arg_uint(task, 0, &ms)) return -1;
    while (!(so = is_so(task)) && ms--) rest(1);
    wh_bool(wh_result(task), so);
    return 0;
}

static int ending(wh_task *task, void *state) {
    (void)state;
    return within(task, wh_end_requested);
}

static int cancelled(wh_task *task, void *state) {
    (void)state;
    return within(task, wh_is_cancelled);
}

static int new_signal(wh_task *task, void *state) {
    const char *text;
    wh_signal signal;
    (void)state;
    if (wh_arg_text(task, 0, &text, NULL)) return -1;
    if (wh_signal_new(wh_link_of(task), text, 0, &signal)) return wh_fail(task, "%s", wh_error(wh_link_of(task)));
    wh_signal_put(wh_result(task), signal);
    return 0;
}

static int trigger(wh_task *task, void *state) {
    wh_signal signal;
    const char *key;
    wh_value value;
    bool first;
    (void)state;
    if (wh_arg_signal(task, 0, &signal) || wh_arg_text(task, 1, &key, NULL) || wh_arg(task, 2, &value)) return -1;
    if (wh_signal_set(wh_link_of(task), signal, key, value) || wh_signal_trigger(wh_link_of(task), signal, &first))
        return wh_fail(task, "%s", wh_error(wh_link_of(task)));
    wh_bool(wh_result(task), first);
    return 0;
}

static int wait_for(wh_task *task, void *state) {
    wh_signal signal;
    uint64_t ms;
    wh_outcome outcome;
    (void)state;
    if (wh_arg_signal(task, 0, &signal) || wh_arg_uint(task, 1, &ms)) return -1;
    if (wh_signal_wait(wh_link_of(task), signal, (double)ms / 1000, &outcome))
        return wh_fail(task, "%s", wh_error(wh_link_of(task)));
    switch (outcome.kind) {
    case WH_TRIGGERED: wh_put(wh_result(task), outcome.value); return 0;
    case WH_TIMED_OUT: return 0;
    case WH_FAILED: return wh_fail(task, "it failed: %s", outcome.error);
    case WH_DEAD: return wh_fail(task, "it is dead: %s", outcome.reason);
    default: return wh_fail(task, "nobody will trigger it");
    }
}

static int leave(wh_task *task, void *state) {
    bool drain;
    (void)state;
    if (wh_arg_bool(task, 0, &drain)) return -1;
    return wh_leave(wh_link_of(task), drain) ? wh_fail(task, "%s", wh_error(wh_link_of(task))) : 0;
}

static wh_link *to_leave;

static void on_sigterm(int number) {
    (void)number;
    wh_leave_soon(to_leave, true);
}

/* Takes the name, serves it, and says of both what is wrong. */
static int attached(const char *name, const wh_method *methods) {
    char error[512];
    wh_link *link = wh_attach(NULL, name, error, sizeof error);
    if (!link) {
        fprintf(stderr, "%s\n", error);
        return 1;
    }
    to_leave = link;
    signal(SIGTERM, on_sigterm);
    int failed = wh_serve(link, methods, NULL);
    signal(SIGTERM, SIG_DFL);
    if (failed) fprintf(stderr, "%s\n", wh_error(link));
    wh_close(link);
    return failed ? 1 : 0;
}

int main(int argc, char **argv) {
    const char *name = getenv("CONFORMANCE_ATTACH");
    const wh_method methods[] = {
        {"echo", "x", echo},
        {"fail", "text", fail},
        {"sleep", "ms", sleep_ms},
        {"crash", "", crash},
        {"who", "", who},
        {"sender", "", sender},
        {"call", "worker, method, args", call},
        {"reply", "method, args", reply},
        {"kill", "worker", kill_worker},
        {"last_words", "worker, method", last_words},
        {"ending", "ms", ending},
        {"cancelled", "ms", cancelled},
        {"new_signal", "text", new_signal},
        {"trigger", "signal, key, value", trigger},
        {"wait_for", "signal, ms", wait_for},
        {"leave", "drain", leave},
        {NULL, NULL, NULL},
    };
    if (name) return attached(name, methods);
    return wh_run(methods, NULL, argc > 1 ? (uint32_t)atoi(argv[1]) : 0);
}
