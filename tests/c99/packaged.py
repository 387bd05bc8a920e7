"""Stand-ins for the build systems of packages: enough of each to configure, build and run an example on this machine."""

import os
import subprocess
from pathlib import Path

ARDUINO_H = """
#include <stdint.h>
#include <stdio.h>
static unsigned long now;
inline unsigned long micros() { return now += 7; }
inline unsigned long millis() { return now; }
struct Port {
  void begin(long) {}
  operator bool() const { return true; }
  void print(const char *text) { printf("%s", text); }
  void print(int number) { printf("%d", number); }
  void print(unsigned long number) { printf("%lu", number); }
  template <class T> void println(T value) { print(value), printf("\\n"); }
};
static Port Serial;
"""
ARDUINO_MAIN = "void setup(); void loop(); int main() { setup(); loop(); }"
IDF = """
macro(idf_component_register)
  cmake_parse_arguments(GIVEN "" "" "SRCS;INCLUDE_DIRS;REQUIRES;PRIV_REQUIRES" ${ARGN})
  get_filename_component(COMPONENT_LIB ${CMAKE_CURRENT_SOURCE_DIR} NAME)
  add_library(${COMPONENT_LIB} OBJECT ${GIVEN_SRCS})
  target_include_directories(${COMPONENT_LIB} PUBLIC ${GIVEN_INCLUDE_DIRS})
  set_property(GLOBAL APPEND PROPERTY components ${COMPONENT_LIB})
endmacro()
macro(project name)
  _project(${name} C)
  foreach(folder ${EXTRA_COMPONENT_DIRS} main)
    get_filename_component(folder ${folder} ABSOLUTE)
    get_filename_component(component ${folder} NAME)
    add_subdirectory(${folder} ${CMAKE_BINARY_DIR}/${component})
  endforeach()
  get_property(components GLOBAL PROPERTY components)
  list(REMOVE_ITEM components main)
  target_link_libraries(main PUBLIC ${components})
  target_include_directories(main PRIVATE $ENV{IDF_PATH})
  add_executable(app $ENV{IDF_PATH}/start.c)
  target_link_libraries(app PRIVATE main ${components} m)
endmacro()
"""
IDF_FILES = {
    "tools/cmake/project.cmake": IDF,
    "esp_timer.h": "#include <stdint.h>\nint64_t esp_timer_get_time(void);\n",
    "start.c": "#include <stdint.h>\nint64_t esp_timer_get_time(void) { static int64_t now; return now += 7; }\n"
    "void app_main(void);\nint main(void) { app_main(); return 0; }\n",
}
ZEPHYR = """
set(ZEPHYR ${CMAKE_CURRENT_LIST_DIR})
file(STRINGS prj.conf lines REGEX "^CONFIG_.*=y$")
foreach(line ${lines})
  string(REPLACE "=y" "" symbol ${line})
  set(${symbol} y)
endforeach()
function(zephyr_include_directories)
  foreach(folder ${ARGN})
    target_include_directories(app PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/${folder})
  endforeach()
endfunction()
macro(zephyr_library_named name)
  set(current ${name})
  add_library(${name} STATIC)
  set_property(GLOBAL PROPERTY library ${name})
  target_link_libraries(app PRIVATE ${name} m)
endmacro()
macro(zephyr_library_sources)
  target_sources(${current} PRIVATE ${ARGN})
endmacro()
macro(zephyr_library_compile_options)
  target_compile_options(${current} PRIVATE ${ARGN})
endmacro()
macro(zephyr_compile_definitions)
  get_property(library GLOBAL PROPERTY library)
  target_compile_definitions(${library} PRIVATE ${ARGN})
  target_compile_definitions(app PRIVATE ${ARGN})
endmacro()
macro(project name)
  _project(${name} C)
  add_executable(app)
  target_include_directories(app PRIVATE ${ZEPHYR}/include)
  foreach(module ${EXTRA_ZEPHYR_MODULES})
    add_subdirectory(${module} ${CMAKE_BINARY_DIR}/module)
  endforeach()
endmacro()
"""
ZEPHYR_FILES = {
    "ZephyrConfig.cmake": ZEPHYR,
    "include/zephyr/kernel.h": "#include <stdint.h>\nstatic inline uint32_t k_cycle_get_32(void) { static uint32_t now; "
    "return now += 70; }\nstatic inline uint32_t k_cyc_to_us_floor32(uint32_t cycles) { return cycles / 10; }\n",
}


def write_files(files: dict[str, str], folder: Path) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def run_command(*command: str | Path, cwd: Path, **env: str) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=os.environ | env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_cmake(sources: Path, build: Path, *flags: str, **env: str) -> str:
    """Configure, build, and run the executable `app`."""
    run_command("cmake", "-S", sources, "-B", build, *flags, cwd=sources, **env)
    run_command("cmake", "--build", build, cwd=sources)
    return run_command(build / "app", cwd=build)
