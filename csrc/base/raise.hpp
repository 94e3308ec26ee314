// raise.hpp: from the C++ exception in flight to the Python exception of the same meaning.
#pragma once

namespace nl {

// Call inside a catch block, with the GIL held.
void raise_python();

}  // namespace nl
