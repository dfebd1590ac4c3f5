"""Compiled loops over the outlines of cells: area, centroid, and whether an outline crosses itself."""

from numba import njit


@njit(cache=True, nogil=True)
def measure(xy, start, measured, crosses):
    """Measure rings, closed or not.

    xy: float64 [p, 2], the vertices of n rings one after the other; start: int64 [n + 1]. measured: float64 [n, 3], set
    to centroid x, y and area, of a ring without area to the mean of its vertices and 0. crosses: bool [n], set where
    two edges of a ring pass through each other; edges that only touch do not.
    """
    for ring in range(len(start) - 1):
        first, number = start[ring], start[ring + 1] - start[ring]
        x0, y0 = xy[first, 0], xy[first, 1]
        doubled = cx = cy = mean_x = mean_y = 0.0
        for i in range(number):
            j = first + (i + 1) % number
            # From the first vertex: large coordinates would cost digits.
            ax, ay, bx, by = xy[first + i, 0] - x0, xy[first + i, 1] - y0, xy[j, 0] - x0, xy[j, 1] - y0
            cross = ax * by - bx * ay
            doubled += cross
            cx += (ax + bx) * cross
            cy += (ay + by) * cross
            mean_x += ax / number
            mean_y += ay / number
        if abs(doubled) < 2e-12:
            measured[ring, 0], measured[ring, 1], measured[ring, 2] = x0 + mean_x, y0 + mean_y, 0.0
        else:
            measured[ring, 0] = x0 + cx / (3 * doubled)
            measured[ring, 1] = y0 + cy / (3 * doubled)
            measured[ring, 2] = abs(doubled) / 2
        crosses[ring] = _crosses(xy[first : first + number])


@njit(cache=True, nogil=True)
def _crosses(xy):
    number = len(xy)
    for i in range(number):
        ax, ay, bx, by = xy[i, 0], xy[i, 1], xy[(i + 1) % number, 0], xy[(i + 1) % number, 1]
        left, right, top, bottom = min(ax, bx), max(ax, bx), min(ay, by), max(ay, by)
        for k in range(i + 2, number):
            last = k + 1 if k + 1 < number else 0
            cx, cy, dx, dy = xy[k, 0], xy[k, 1], xy[last, 0], xy[last, 1]
            if (cx < left and dx < left) or (cx > right and dx > right):
                continue
            if (cy < top and dy < top) or (cy > bottom and dy > bottom):
                continue
            c, d = _side(ax, ay, bx, by, cx, cy), _side(ax, ay, bx, by, dx, dy)
            if c * d < 0 and _side(cx, cy, dx, dy, ax, ay) * _side(cx, cy, dx, dy, bx, by) < 0:
                return True
    return False


@njit(cache=True, nogil=True)
def _side(ax, ay, bx, by, x, y):
    """Return on which side of the line from a to b a point lies: 1, -1, or 0 on it."""
    cross = (bx - ax) * (y - ay) - (by - ay) * (x - ax)
    return 1 if cross > 0 else (-1 if cross < 0 else 0)
