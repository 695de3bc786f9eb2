#include "coordinator/rows.h"

static json_t *value_of(const struct store_row *row, int col)
{
    switch (store_col_type(row, col)) {
    case STORE_INT:
        return json_integer(store_col_int(row, col));
    case STORE_NUM:
        return json_number_or_null(store_col_num(row, col));
    case STORE_TEXT:
        return json_string(store_col_text(row, col));
    case STORE_NULL:
        return json_null();
    case STORE_BLOB:
        break;
    }
    return NULL;
}

json_t *rows_object(const struct store_row *row)
{
    json_t *o = json_object();
    for (int i = 0; i < store_n_cols(row); i++) {
        json_t *v = value_of(row, i);
        if (v != NULL)
            json_object_set_new(o, store_col_name(row, i), v);
    }
    return o;
}

static enum err_code append_row(void *arg, const struct store_row *row, struct err *e)
{
    (void)e;
    json_array_append_new(arg, rows_object(row));
    return ERR_OK;
}

enum err_code rows_query(struct store *s, const char *sql, const char *const *params, int n_params,
                         json_t **out, struct err *e)
{
    json_t *all = json_array();
    enum err_code rc = store_query(s, sql, params, n_params, append_row, all, e);
    if (rc == ERR_OK)
        *out = all;
    else
        json_decref(all);
    return rc;
}
