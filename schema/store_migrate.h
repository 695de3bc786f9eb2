/* Numbered migrations of the database, made from schema/sql/NNNN_*.sql at build time. A released file is never edited: a
 * change is a new number. PRAGMA user_version holds the last one applied. */
#ifndef ISOBIT_SCHEMA_STORE_MIGRATE_H
#define ISOBIT_SCHEMA_STORE_MIGRATE_H

struct store_migration {
    int version;
    const char *name;
    const char *sql;
};

extern const struct store_migration store_migrations[]; /* ends with version 0 */

#endif
