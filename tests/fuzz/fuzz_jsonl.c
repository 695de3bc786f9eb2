/* Data files as a hostile neighbour would write them: line reading, decompression, JSON and the texts of every task. */
#include <stdint.h>

#include "base/mem.h"
#include "worker/eval/data.h"
#include "worker/eval/eval.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void parse_all(const json_t *record, const char *where)
{
    for (int t = 0; t < TASK_COUNT; t++) {
        const struct task_ops *ops = task_ops_of((enum task)t);
        struct task_item item = {.gold = -1};
        struct arena a = {0};
        struct err e;
        if (ops->parse != NULL && ops->parse(record, where, &a, &item, &e) == ERR_OK)
            CHECK(item.n_choices == task_choices((enum task)t) && item.gold < item.n_choices);
        arena_release(&a);
    }
}

static void read_records(struct str bytes, const char *name)
{
    struct data_reader *r = data_open_memory(bytes, name);
    json_t *record = NULL;
    struct err e;
    while (data_next_record(r, &record, &e) == ERR_OK && record != NULL) {
        parse_all(record, data_where(r));
        json_decref(record);
    }
    data_close(r);
}

static void read_text(struct str bytes, const char *name)
{
    struct data_reader *r = data_open_memory(bytes, name);
    struct buf text = {0};
    struct err e;
    if (data_read_rest(r, &text, &e) == ERR_OK)
        buf_release(&text);
    data_close(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str bytes = {(const char *)data, size};
    read_records(bytes, "fuzz.jsonl");
    read_records(bytes, "fuzz.jsonl.zst");
    read_text(bytes, "fuzz.txt.zst");
    return 0;
}
