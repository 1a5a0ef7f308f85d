/* Statuses in words, and the list of cells. */
#include "fastlstm.h"

const char *fl_status_text(enum fl_status status)
{
    switch (status) {
    case FL_OK: return "ok";
    case FL_ERR_ARGUMENT: return "an argument is missing, out of range, or overlaps another one that must not";
    case FL_ERR_OVERFLOW: return "the sizes are too large for this machine's address space";
    case FL_ERR_MEMORY: return "out of memory";
    case FL_ERR_WORKSPACE: return "the workspace is smaller than the query asked for, or not 64-byte aligned";
    case FL_ERR_ISA: return "no such instruction set on this machine";
    case FL_ERR_GEMM: return "FASTLSTM_GEMM must be auto, panel or blas";
    case FL_ERR_LENGTH: return "a length is negative or greater than the number of steps";
    case FL_ERR_BACKWARD: return "the model was packed without what backward needs";
    case FL_ERR_BLAS: return "FASTLSTM_GEMM=blas needs a BLAS table";
    case FL_ERR_THREADS: return "FASTLSTM_NUM_THREADS must be an integer in 0..1024 (0: the default)";
    case FL_ERR_STOPPED: return "the call was ended by its poll";
    }
    return "unknown status";
}

static const struct {
    const char *name;
    int gates;
} cells[] = {
#define FL_CELL_ROW(ID, name, gates) {#name, gates},
#include "cells.def"
#undef FL_CELL_ROW
};

int fl_cell_count(void) { return FL_CELL_COUNT; }
const char *fl_cell_name(int cell) { return cell >= 0 && cell < FL_CELL_COUNT ? cells[cell].name : NULL; }
int fl_cell_gates(int cell) { return cell >= 0 && cell < FL_CELL_COUNT ? cells[cell].gates : 0; }
