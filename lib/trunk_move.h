/* trunk_move: what a trunk's vifs take along in a migration at most (docs/vif-move.md,
 * weft-migrate's job). */
#ifndef TRUNK_MOVE_H
#define TRUNK_MOVE_H

enum {
    TRUNK_MOVE_CHILDREN = 8,   /* beside the parent */
    TRUNK_MOVE_ADDRESSES = 32, /* of all of them, where one is locked */
};

#endif
