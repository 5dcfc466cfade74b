/* A candidate as people write them: reads x from a .npy file, writes y to another. Compiled with -DPORT="header.h". */
#include PORT
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    char header[65536];
    unsigned char start[10];
    int batch, timesteps, features;
    FILE *file = argc > 2 ? fopen(argv[1], "rb") : NULL;
    if (!file || fread(start, 1, 10, file) != 10)
        return 3;
    size_t length = start[8] + 256u * start[9];
    if (fread(header, 1, length, file) != length)
        return 4;
    header[length] = 0;
    const char *shape = strstr(header, "'shape': (");
    if (!shape || sscanf(shape, "'shape': (%d, %d, %d)", &batch, &timesteps, &features) != 3 || !strstr(header, "'<f4'"))
        return 5;
    size_t in = (size_t)timesteps * features, out = (size_t)(SEQUENCES ? timesteps : 1) * UNITS;
    float *x = malloc(batch * in * sizeof *x), *y = malloc(batch * out * sizeof *y);
    float *work = malloc((WORK(timesteps) + 1) * sizeof *work);
    if (!x || !y || !work || fread(x, sizeof *x, batch * in, file) != batch * in)
        return 6;
    fclose(file);
    for (int row = 0; row < batch; row++)
        FORWARD(timesteps, x + row * in, y + row * out, work);
    file = fopen(argv[2], "wb");
    if (!file)
        return 7;
    memset(header, ' ', 118);
    int used = SEQUENCES
        ? sprintf(header, "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d, %d), }", batch, timesteps, UNITS)
        : sprintf(header, "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", batch, UNITS);
    header[used] = ' ';
    header[117] = '\n';
    fwrite("\x93NUMPY\x01\x00\x76\x00", 1, 10, file);
    fwrite(header, 1, 118, file);
    fwrite(y, sizeof *y, batch * out, file);
    return fclose(file) ? 8 : 0;
}
