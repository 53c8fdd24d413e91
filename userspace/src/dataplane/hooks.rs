//! The hooks at which programs take the frames of a port.

/// Where the frames of a port are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hooks {
    /// In the driver.
    Xdp,
    /// At tc, where frames arrive.
    Tc,
    /// In the driver and, for what that passes on, at tc.
    XdpAndTc,
    /// At tc, where the host sends: an internal port.
    Host,
}

impl Hooks {
    /// Returns the word for them in `status`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Xdp => "xdp-native",
            Self::Tc | Self::Host => "tc",
            Self::XdpAndTc => "xdp+tc",
        }
    }

    /// Returns whether the XDP program is on the device.
    pub fn xdp(self) -> bool {
        matches!(self, Self::Xdp | Self::XdpAndTc)
    }

    /// Returns whether the tc program is on the device.
    pub fn tc(self) -> bool {
        !matches!(self, Self::Xdp)
    }
}
