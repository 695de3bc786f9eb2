#include <stddef.h>
#include <sys/vfs.h>

#include "base/io.h"
#include "base/mem.h"
#include "schema/store_impl.h"

/* f_type of statfs(2). FUSE is not listed: it carries local file systems as often as remote ones. */
static const struct {
    unsigned long type;
    const char *name;
} network[] = {
    {0x6969, "NFS"},        {0x517B, "SMB"},       {0xFF534D42, "CIFS"},  {0xFE534D42, "SMB2"},
    {0x0BD00BD0, "Lustre"}, {0x47504653, "GPFS"},  {0x00C36400, "Ceph"},  {0x19830326, "BeeGFS"},
    {0x5346414F, "AFS"},    {0x6B414653, "AFS"},   {0x01021997, "9p"},    {0x20030528, "OrangeFS"},
    {0xAAD7AAEA, "PanFS"},  {0x73757245, "Coda"},  {0x013111A8, "IBRIX"}, {0x61636673, "ACFS"},
    {0x01161970, "GFS2"},   {0x7461636F, "OCFS2"},
};

const char *store_fs_network_name(unsigned long type)
{
    for (size_t i = 0; i < ARRAY_LEN(network); i++)
        if (network[i].type == type)
            return network[i].name;
    return NULL;
}

const char *store_fs_network_of(const char *path)
{
    char *dir = io_dirname(path);
    struct statfs fs;
    /* A folder that cannot be asked fails when it is opened, with a better message. f_type is signed on some
     * architectures and its values have 32 bits. */
    const char *name = statfs(dir, &fs) == 0
                           ? store_fs_network_name((unsigned long)fs.f_type & 0xFFFFFFFFUL)
                           : NULL;
    xfree(dir);
    return name;
}
