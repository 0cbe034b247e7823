//! An emulated GPU. It takes the place of the drivers' libraries, so that the code that talks to a card is tested as it is.
