//! Layers by experts, as far as they fit: how hot each is, and where it is.

use super::answers::Layer;

/// Where an expert is, nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    Device,
    Memory,
    Disk,
}

impl Tier {
    pub const ALL: [Self; 3] = [Self::Device, Self::Memory, Self::Disk];

    fn of(letter: char) -> Self {
        match letter {
            'g' => Self::Device,
            'm' => Self::Memory,
            _ => Self::Disk,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }

    pub fn letter(self) -> char {
        match self {
            Self::Device => 'g',
            Self::Memory => 'm',
            Self::Disk => 'd',
        }
    }
}

/// Some neighbouring experts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// Where most of them are; of as many, the nearest.
    pub tier: Tier,
    /// Their mean part of the picks; 1 is that of a layer's average expert.
    pub heat: f64,
}

impl Cell {
    /// A letter, large if it is hotter than the average.
    pub fn letter(self) -> char {
        match self.heat > 1.0 {
            true => self.tier.letter().to_ascii_uppercase(),
            false => self.tier.letter(),
        }
    }

    /// How bright, of [`N_LEVELS`].
    pub fn level(self) -> usize {
        LEVELS.iter().filter(|least| self.heat >= **least).count()
    }
}

/// The heat from which on a cell is brighter.
const LEVELS: [f64; 4] = [0.1, 0.6, 1.5, 3.0];
pub const N_LEVELS: usize = LEVELS.len() + 1;

/// All experts of a model in as many cells as there is room for.
#[derive(Debug, Default)]
pub struct Grid {
    /// With the number of the first layer of each. Where a layer has fewer experts, there is nothing.
    pub rows: Vec<(u32, Vec<Option<Cell>>)>,
    pub layers_per_cell: usize,
    pub experts_per_cell: usize,
}

impl Grid {
    /// As few neighbours in a cell as fit into so many rows and columns.
    pub fn new(layers: &[Layer], n_rows_max: usize, n_columns_max: usize) -> Self {
        let n_experts = layers.iter().map(|layer| layer.share.len()).max();
        let n_experts = n_experts.unwrap_or(0);
        if n_rows_max == 0 || n_columns_max == 0 || n_experts == 0 {
            return Self::default();
        }
        let layers_per_cell = layers.len().div_ceil(n_rows_max);
        let experts_per_cell = n_experts.div_ceil(n_columns_max);
        let rows = layers.chunks(layers_per_cell).map(|layers| {
            let columns = (0..n_experts).step_by(experts_per_cell);
            let cells = columns.map(|first| cell(layers, first, experts_per_cell));
            (layers[0].block, cells.collect())
        });
        Self {
            rows: rows.collect(),
            layers_per_cell,
            experts_per_cell,
        }
    }

    /// What it shows, in a line to which what cells mean is added.
    pub fn heading(&self) -> String {
        format!(
            "Layers x experts, {} x {} in a cell:",
            self.layers_per_cell, self.experts_per_cell
        )
    }
}

fn cell(layers: &[Layer], first: usize, n_experts: usize) -> Option<Cell> {
    let mut heats = 0.0;
    let mut counts = [0; Tier::ALL.len()];
    for layer in layers {
        let experts = layer.share.iter().zip(layer.tier.chars());
        for (share, letter) in experts.skip(first).take(n_experts) {
            heats += share * layer.share.len() as f64;
            counts[Tier::of(letter) as usize] += 1;
        }
    }
    let n: usize = counts.iter().sum();
    let most = counts.iter().max()?;
    let tier = Tier::ALL[counts.iter().position(|count| count == most)?];
    let heat = heats / n as f64;
    (n > 0).then_some(Cell { tier, heat })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(block: u32, share: &[f64], tier: &str) -> Layer {
        Layer {
            block,
            share: share.to_vec(),
            tier: tier.to_string(),
        }
    }

    fn letters(grid: &Grid) -> Vec<String> {
        let letter = |cell: &Option<Cell>| cell.map_or(' ', Cell::letter);
        let rows = grid.rows.iter();
        rows.map(|(_, cells)| cells.iter().map(letter).collect())
            .collect()
    }

    #[test]
    fn what_fits_is_shown_as_it_is() {
        let layers = [
            layer(3, &[0.5, 0.5, 0.0, 0.0], "gmdm"),
            layer(4, &[0.1, 0.9], "dm"),
        ];
        let grid = Grid::new(&layers, 2, 4);
        assert_eq!(letters(&grid), ["GMdm", "dM  "]);
        assert_eq!(grid.heading(), "Layers x experts, 1 x 1 in a cell:");
        assert_eq!((grid.rows[0].0, grid.rows[1].0), (3, 4));
    }

    #[test]
    fn neighbours_share_a_cell_where_all_do_not_fit() {
        let layers: Vec<Layer> = (0..5)
            .map(|block| layer(block, &[0.4, 0.0, 0.3, 0.1, 0.2], "mddgg"))
            .collect();
        let grid = Grid::new(&layers, 2, 3);
        assert_eq!(grid.heading(), "Layers x experts, 3 x 2 in a cell:");
        // Means are 0.2, 0.2 and 0.2 of picks, of an average of 0.2; of as many the nearest wins.
        let row = &grid.rows[0].1;
        assert_eq!(row.len(), 3);
        for (cell, tier) in row.iter().zip([Tier::Memory, Tier::Device, Tier::Device]) {
            let cell = cell.unwrap();
            assert_eq!(cell.tier, tier);
            assert!((cell.heat - 1.0).abs() < 1e-9, "{cell:?}");
        }
        assert_eq!((grid.rows.len(), grid.rows[1].0), (2, 3));
        // The majority of four, of which one is elsewhere.
        let grid = Grid::new(&[layer(0, &[0.25; 4], "gddd")], 1, 1);
        assert_eq!(grid.rows[0].1[0].unwrap().tier, Tier::Disk);
    }

    #[test]
    fn no_room_and_no_layers_are_no_cells() {
        let some = [layer(0, &[1.0], "m")];
        assert!(Grid::new(&some, 0, 9).rows.is_empty());
        assert!(Grid::new(&some, 9, 0).rows.is_empty());
        assert!(Grid::new(&[], 9, 9).rows.is_empty());
        // Letters that are missing are no experts.
        let grid = Grid::new(&[layer(0, &[0.5, 0.5], "m")], 9, 9);
        assert_eq!(letters(&grid), ["m "]);
    }

    #[test]
    fn hotter_is_brighter() {
        let tier = Tier::Memory;
        let level = |heat| Cell { tier, heat }.level();
        assert_eq!([0.0, 0.1, 1.0, 2.0, 9.0].map(level), [0, 1, 2, 3, 4]);
        assert_eq!(level(f64::MAX) + 1, N_LEVELS);
    }
}
