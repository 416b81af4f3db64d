/* A counter, as a worker; started with arguments, a caller of one:
 *
 *     cc -std=c99 -O2 -o w/counter example.c && workhall serve --workers w --socket /tmp/w.sock
 *     w/counter /tmp/w.sock counter add 5        prints 5
 */
#define WORKHALL_IMPLEMENTATION
#include "workhall.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- the worker: its state is an int64_t of main() ---- */

static int add(wh_task *task, void *state) {
    int64_t *total = state, amount;
    if (wh_arg_int(task, 0, &amount)) return -1;
    if (amount > 0 ? *total > INT64_MAX - amount : *total < INT64_MIN - amount)
        return wh_fail(task, "the total would not fit into 64 bits");
    *total += amount;
    wh_int(wh_result(task), *total);
    return 0;
}

static int total(wh_task *task, void *state) {
    wh_int(wh_result(task), *(int64_t *)state);
    return 0;
}

/* Answers a worker that has called, by a call. */
static int tell(wh_task *task, void *state) {
    wh_writer args = {0};
    wh_receipt receipt;
    wh_list(&args, 1);
    wh_int(&args, *(int64_t *)state);
    int failed = wh_reply(task, "total_is", &args, &receipt);
    wh_free(&args);
    return failed ? wh_fail(task, "%s", wh_error(wh_link_of(task))) : 0;
}

/* What is pending is ignored; this task still ends in peace. */
static int end(wh_task *task, void *state) {
    wh_receipt receipt;
    (void)state;
    return wh_kill(wh_link_of(task), wh_self(), &receipt) ? wh_fail(task, "%s", wh_error(wh_link_of(task))) : 0;
}

/* ---- the caller ---- */

static int caller(const char *socket, const char *worker, const char *method, const char *number) {
    char error[256];
    wh_link *link = wh_connect(socket, error, sizeof error);
    if (!link) {
        fprintf(stderr, "%s\n", error);
        return 4;
    }
    wh_writer args = {0};
    wh_receipt receipt;
    wh_outcome outcome;
    wh_list(&args, number ? 1 : 0);
    if (number) wh_int(&args, strtoll(number, NULL, 10));
    int status = 1;
    if (wh_call_and_wait(link, wh_name(worker), method, &args, &receipt, &outcome)) {
        fprintf(stderr, "%s\n", wh_error(link));
    } else if (receipt.kind != WH_ACCEPTED) {
        fprintf(stderr, "%s: %s\n", receipt.reason, receipt.detail);
        status = receipt.kind == WH_REFUSED ? 3 : 0;
    } else if (outcome.kind == WH_DONE) {
        wh_reader reader = wh_read(outcome.value);
        wh_item item;
        wh_next(&reader, &item);
        if (item.type == WH_INT) printf("%" PRId64 "\n", item.integer);
        if (item.type == WH_UINT) printf("%" PRIu64 "\n", item.whole);
        status = 0;
    } else {
        fprintf(stderr, "%s\n", outcome.kind == WH_FAILED ? outcome.error : "it will not be executed");
    }
    wh_free(&args);
    wh_close(link);
    return status;
}

int main(int argc, char **argv) {
    if (argc >= 4) return caller(argv[1], argv[2], argv[3], argc > 4 ? argv[4] : NULL);
    const wh_method methods[] = {
        {"add", "amount", add}, {"total", "", total}, {"tell", "", tell}, {"end", "", end}, {NULL, NULL, NULL},
    };
    int64_t count = 0;
    return wh_run(methods, &count, 0);
}
