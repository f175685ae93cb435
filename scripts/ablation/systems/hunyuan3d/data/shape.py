"""One prepared shape: a folder in the released layout that holds nothing else."""

from pathlib import Path

from ablation.errors import UserError
from ablation.systems.hunyuan3d.data.frame import has_volume
from ablation.systems.hunyuan3d.data.layout import (
    Distances,
    SurfacePoints,
    camera_file,
    geometry_files,
    read_distances,
    read_surface,
    render_files,
)


class Shape:
    """The shape in ``folder``, with at least as many points as asked for. Raises UserError naming the file."""

    def __init__(self, folder: Path, points: int, sharp_points: int):
        (self.name,) = (path.name for path in folder.iterdir() if path.is_dir())
        self.surface_file, self.distances_file = geometry_files(folder, self.name)
        self.views = render_files(folder, self.name)
        """Its pictures, in their order."""
        self.camera_file = camera_file(folder, self.name)
        surface = self.surface()
        for kind, rows, wanted in (("random", surface.random, points), ("sharp", surface.sharp, sharp_points)):
            if len(rows) < wanted:
                raise UserError(
                    f"{self.surface_file}: {kind}_surface holds {len(rows)} points, {wanted} are wanted;"
                    f" lower data.{'points' if kind == 'random' else 'sharp_points'}"
                )

    def surface(self) -> SurfacePoints:
        """Points on the surface, and on its sharp edges."""
        return read_surface(self.surface_file)

    def volume(self) -> Distances | None:
        """Places all over the box, and their distances; None where these describe a shell, which has no volume to compare."""
        known = read_distances(self.distances_file)["vol"]
        return known if has_volume(known) else None
