#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "schema/link.h"

static struct link_context *context;
static struct link *server, *client;
static char bound[256];
static struct err e;

static void open_links(void)
{
    cr_assert_eq(link_context_new(&context, &e), ERR_OK);
    cr_assert_eq(link_listen(context, "tcp://127.0.0.1:0", NULL, bound, &server, &e), ERR_OK, "%s",
                 e.text);
    cr_assert_eq(link_connect(context, bound, NULL, &client, &e), ERR_OK, "%s", e.text);
}

static void close_links(void)
{
    link_close(client);
    link_close(server);
    link_context_free(context);
}

TestSuite(link, .init = open_links, .fini = close_links);

static struct link_inbox expect_message(struct link *l)
{
    struct link_inbox in;
    bool readable = false, found = false;
    int64_t end = clock_mono_ns() + 5 * CLOCK_NS_PER_S;
    while (!found && clock_mono_ns() < end) {
        link_wait(&l, 1, NULL, 0, CLOCK_NS_PER_S / 10, &readable);
        found = link_receive(l, &in);
    }
    cr_assert(found, "no message in 5 s");
    return in;
}

static void send_when_connected(struct link *l, enum wire_type type, const json_t *body,
                                const struct wire_frame *blobs, int n_blobs)
{
    int64_t end = clock_mono_ns() + 5 * CLOCK_NS_PER_S;
    enum err_code rc;
    do
        rc = link_send(l, NULL, type, body, blobs, n_blobs, &e);
    while (rc == ERR_BUSY && clock_mono_ns() < end);
    cr_assert_eq(rc, ERR_OK, "%s", e.text);
}

Test(link, message_goes_there_and_the_answer_comes_back)
{
    json_t *body = json_pack("{s:s}", "uuid", "u1");
    struct wire_frame blob = {"abc", 3};
    send_when_connected(client, WIRE_HELLO, body, &blob, 1);
    struct link_inbox in = expect_message(server);
    cr_assert_not(in.is_bad);
    cr_expect_eq(in.msg.type, WIRE_HELLO);
    cr_expect(json_equal(in.msg.body, body));
    cr_expect(in.msg.n_blobs == 1 && memcmp(in.msg.blobs[0].data, "abc", 3) == 0);
    cr_assert_eq(link_send(server, &in.from, WIRE_WELCOME, NULL, NULL, 0, &e), ERR_OK);
    link_inbox_release(&in);
    in = expect_message(client);
    cr_expect_eq(in.msg.type, WIRE_WELCOME);
    link_inbox_release(&in);
    json_decref(body);
}

Test(link, vanished_peer_is_told_and_not_dropped_silently)
{
    send_when_connected(client, WIRE_BEAT, NULL, NULL, 0);
    struct link_inbox in = expect_message(server);
    link_inbox_release(&in);
    link_close(client);
    client = NULL;
    enum err_code rc = ERR_OK;
    for (int i = 0; i < 100 && rc == ERR_OK; i++) {
        link_wait(&server, 1, NULL, 0, CLOCK_NS_PER_S / 50, &(bool){false});
        rc = link_send(server, &in.from, WIRE_BEAT, NULL, NULL, 0, &e);
    }
    cr_expect_eq(rc, ERR_NOTFOUND);
}

Test(link, unknown_peer_is_an_error)
{
    struct link_peer nobody = {.id = {0, 1, 2, 3, 4}, .n = 5};
    cr_expect_eq(link_send(server, &nobody, WIRE_BEAT, NULL, NULL, 0, &e), ERR_NOTFOUND);
}

Test(link, nothing_is_queued_for_a_coordinator_that_is_not_there)
{
    struct link *lonely = NULL;
    cr_assert_eq(link_connect(context, "ipc:///tmp/isobit-test-nobody-is-here", NULL, &lonely, &e),
                 ERR_OK);
    cr_expect_eq(link_send(lonely, NULL, WIRE_BEAT, NULL, NULL, 0, &e), ERR_BUSY);
    link_close(lonely);
}

Test(link, address_in_use_is_busy)
{
    struct link *second = NULL;
    char other[256];
    cr_expect_eq(link_listen(context, bound, NULL, other, &second, &e), ERR_BUSY);
    cr_expect_not_null(strstr(e.text, bound), "%s", e.text);
}

Test(link, malformed_addresses_are_usage_errors)
{
    static const char *const bad[] = {"tcp://127.0.0.1", "tcp://127.0.0.1:99999999",
                                      "tcp://127.9.9.9:x"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct link *l = NULL;
        char other[256];
        cr_expect_eq(link_listen(context, bad[i], NULL, other, &l, &e), ERR_USAGE, "%s: %s", bad[i],
                     e.text);
    }
    struct link *l = NULL;
    cr_expect_eq(link_connect(context, "nonsense", NULL, &l, &e), ERR_USAGE);
}

Test(link, without_keys_only_this_machine_is_listened_on)
{
    static const char *const open[] = {"tcp://0.0.0.0:0", "tcp://*:0", "tcp://192.0.2.1:5555",
                                       "tcp://example.org:1", "tcp://eth0:5555"};
    for (size_t i = 0; i < ARRAY_LEN(open); i++) {
        struct link *l = NULL;
        char other[256];
        cr_expect_eq(link_listen(context, open[i], NULL, other, &l, &e), ERR_DENIED, "%s", open[i]);
        cr_expect_not_null(strstr(e.text, "isobit keygen"), "%s", e.text);
    }
    cr_expect(link_is_local("tcp://127.0.0.1:0"));
    cr_expect(link_is_local("ipc:///tmp/x"));
    cr_expect(link_is_local("tcp://localhost:5"));
    cr_expect_not(link_is_local("tcp://localhost.example.org:5"));
    cr_expect_not(link_is_local("tcp://127.evil.example.org:5"));
}

Test(link, waiting_sees_file_descriptors_and_time_runs_out)
{
    int fds[2];
    bool readable[2] = {true, true};
    cr_assert_eq(pipe(fds), 0);
    int64_t start = clock_mono_ns();
    cr_expect_eq(link_wait(&server, 1, fds, 1, CLOCK_NS_PER_S / 50, readable), 0);
    cr_expect_geq(clock_seconds_since(start), 0.019);
    cr_expect(!readable[0] && !readable[1]);
    cr_assert_eq(write(fds[1], "x", 1), 1);
    cr_expect_eq(link_wait(&server, 1, fds, 1, -1, readable), 1);
    cr_expect(!readable[0] && readable[1]);
}

/* ---- keys ---- */

static struct link_keys server_keys, client_keys;
static char knocked[LINK_KEY_HEX], failure[256];
static bool is_listed, is_told_unlisted;

static bool admit(void *arg, const char key[LINK_KEY_HEX], const char *address)
{
    (void)arg;
    cr_expect_str_eq(address, "127.0.0.1");
    memcpy(knocked, key, sizeof(knocked));
    return is_listed;
}

static void note_failure(void *arg, bool is_unlisted, const char *text)
{
    (void)arg;
    is_told_unlisted |= is_unlisted;
    snprintf(failure, sizeof(failure), "%s", text);
}

/* A listening link with keys beside the suite's plain one, and a client of it. */
static void open_keyed(const struct link_keys *of_client, struct link **listening,
                       struct link **connecting)
{
    static struct link_door door = {.admit = admit, .on_failure = note_failure};
    struct link_options ours = {.keys = &server_keys, .door = &door};
    struct link_options theirs = {.keys = of_client, .door = &door};
    char at[256];
    cr_assert_eq(link_make_keys(&server_keys, &e), ERR_OK, "%s", e.text);
    cr_assert_eq(link_make_keys(&client_keys, &e), ERR_OK, "%s", e.text);
    memcpy(client_keys.coordinator, server_keys.public_key, LINK_KEY_HEX);
    cr_assert_eq(link_listen(context, "tcp://127.0.0.1:0", &ours, at, listening, &e), ERR_OK, "%s",
                 e.text);
    cr_assert_eq(link_connect(context, at, &theirs, connecting, &e), ERR_OK, "%s", e.text);
}

/* Serves both sides until a message got through or `seconds` are over. */
static bool gets_through(struct link *listening, struct link *connecting, double seconds,
                         struct link_inbox *in)
{
    struct link *const both[] = {listening, connecting};
    bool readable[2];
    int64_t start = clock_mono_ns();
    while (clock_seconds_since(start) < seconds) {
        ERR_IGNORE(link_send(connecting, NULL, WIRE_BYE, NULL, NULL, 0, &e));
        link_wait(both, 2, NULL, 0, CLOCK_NS_PER_S / 50, readable);
        if (link_receive(listening, in))
            return true;
    }
    return false;
}

Test(link, listed_key_gets_in_and_every_message_says_whose_it_is)
{
    struct link *listening, *connecting;
    struct link_inbox in;
    is_listed = true;
    open_keyed(&client_keys, &listening, &connecting);
    cr_assert(gets_through(listening, connecting, 5, &in));
    cr_expect_str_eq(knocked, client_keys.public_key);
    cr_expect_str_eq(in.who, client_keys.public_key);
    cr_expect(!in.is_bad && in.msg.type == WIRE_BYE && in.n_bytes == WIRE_HEADER_BYTES + 2);
    link_inbox_release(&in);
    link_close(connecting);
    link_close(listening);
}

Test(link, key_that_is_not_listed_gets_nothing_and_is_told_why)
{
    struct link *listening, *connecting;
    struct link_inbox in;
    open_keyed(&client_keys, &listening, &connecting);
    cr_expect_not(gets_through(listening, connecting, 0.7, &in));
    cr_expect_str_eq(knocked, client_keys.public_key);
    cr_expect(is_told_unlisted);
    link_close(connecting);
    link_close(listening);
}

Test(link, client_without_keys_gets_nothing)
{
    struct link *listening, *connecting;
    struct link_inbox in;
    is_listed = true;
    open_keyed(NULL, &listening, &connecting);
    cr_expect_not(gets_through(listening, connecting, 0.7, &in));
    cr_expect_str_eq(knocked, "");
    cr_expect_str_neq(failure, "");
    cr_expect_not(is_told_unlisted);
    link_close(connecting);
    link_close(listening);
}

Test(link, plain_messages_have_no_owner)
{
    send_when_connected(client, WIRE_BEAT, NULL, NULL, 0);
    struct link_inbox in = expect_message(server);
    cr_expect_str_eq(in.who, "");
    link_inbox_release(&in);
}

Test(link, more_connections_than_allowed_are_closed)
{
    struct link_door door = {.max_connections = 3};
    struct link_options o = {.door = &door};
    struct link *listening = NULL, *v[8];
    char at[256];
    bool readable[1];
    int n_open = 0;
    cr_assert_eq(link_listen(context, "tcp://127.0.0.1:0", &o, at, &listening, &e), ERR_OK);
    const struct link_options once = {.reconnect_min_ns = 60 * CLOCK_NS_PER_S,
                                      .reconnect_max_ns = 60 * CLOCK_NS_PER_S};
    for (size_t i = 0; i < ARRAY_LEN(v); i++)
        cr_assert_eq(link_connect(context, at, &once, &v[i], &e), ERR_OK);
    int64_t start = clock_mono_ns();
    while (clock_seconds_since(start) < 0.7)
        link_wait(&listening, 1, NULL, 0, CLOCK_NS_PER_S / 50, readable);
    for (size_t i = 0; i < ARRAY_LEN(v); i++) {
        n_open += link_send(v[i], NULL, WIRE_BEAT, NULL, NULL, 0, &e) == ERR_OK;
        link_close(v[i]);
    }
    cr_expect(n_open >= 1 && n_open <= 3, "%d of 8 are open", n_open);
    link_close(listening);
}
