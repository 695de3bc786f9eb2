/* Rates behind every estimate of time (models spec, section 4): what `isobit plan` and a worker's own plan assume of
 * machines that were not measured. Pure. */
#ifndef ISOBIT_SCHEMA_RATES_H
#define ISOBIT_SCHEMA_RATES_H

/* FLOP/s of a GPU: the same for every model, and by size, since small models leave a large device idle. */
double rate_flat(void);
double rate_by_size(double n_params);
/* FLOP/s of a CPU core: what fp32 products of small models reach on a server core with AVX2. */
double rate_cpu_core(void);
/* Bytes/s of weights from storage. */
double rate_storage(void);
/* Bytes/s from pinned host memory to a GPU. */
double rate_link(void);

#endif
