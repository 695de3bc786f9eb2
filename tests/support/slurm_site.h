/* A real Slurm on this machine for the length of a test: munged, slurmctld and slurmd in a folder of their own, without
 * systemd. One node of six (made up) cores; partitions `main` (preempted jobs are queued again, after a warning by their
 * own signal), `cancel` (preempted jobs are cancelled), `high`, which preempts both, and `lasting`, which nobody preempts. Plain C. */
#ifndef ISOBIT_TESTS_SUPPORT_SLURM_SITE_H
#define ISOBIT_TESTS_SUPPORT_SLURM_SITE_H

#include <stdbool.h>
#include <sys/types.h>

enum { SLURM_SITE_CORES = 6 };

struct slurm_site {
    char *dir;
    pid_t munged, slurmctld, slurmd;
};

/* Sets SLURM_CONF. False with a message on stderr when the programs are not installed or the site does not come up. */
bool slurm_site_start(struct slurm_site *s);
/* Ends all jobs and the daemons, and removes the folder. */
void slurm_site_stop(struct slurm_site *s);

#endif
